package ecrtest

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// TagMutability says which tags of a repository can move.
type TagMutability struct {
	// Immutable makes all of them immutable, but those that match Except: patterns
	// in which * stands for anything. If it is false those alone are.
	Immutable bool
	Except    []string
}

// movable tells whether a tag that exists can stand for something else.
func (m TagMutability) movable(tag string) bool {
	excepted := slices.ContainsFunc(m.Except, func(p string) bool { return matches(p, tag) })
	return m.Immutable == excepted
}

// String returns ECR's word for it.
func (m TagMutability) String() string {
	word := "MUTABLE"
	if m.Immutable {
		word = "IMMUTABLE"
	}
	if len(m.Except) > 0 {
		word += "_WITH_EXCLUSION"
	}
	return word
}

// SetTagMutability says which tags of a repository can move, which it creates
// if need be. AddManifest then refuses to move the others.
func (s *Server) SetTagMutability(repo string, m TagMutability) error {
	if !repositoryName.MatchString(repo) {
		return fmt.Errorf("setting the mutability of tags: %q is not a repository name", repo)
	}
	m.Except = slices.Clone(m.Except)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repository(repo).mutability = m
	return nil
}

// repositoryDetail is a repository in the answer of DescribeRepositories.
type repositoryDetail struct {
	RepositoryARN      string            `json:"repositoryArn"`
	RegistryID         string            `json:"registryId"`
	RepositoryName     string            `json:"repositoryName"`
	RepositoryURI      string            `json:"repositoryUri"`
	CreatedAt          float64           `json:"createdAt"`
	ImageTagMutability string            `json:"imageTagMutability"`
	ExclusionFilters   []exclusionFilter `json:"imageTagMutabilityExclusionFilters,omitempty"`
}

type exclusionFilter struct {
	FilterType string `json:"filterType"`
	Filter     string `json:"filter"`
}

// describeRepositories sends the repositories that are named, or else a page
// of all, by name.
func (s *Server) describeRepositories(x *exchange, body []byte) {
	var in struct {
		RegistryID      string   `json:"registryId"`
		RepositoryNames []string `json:"repositoryNames"`
		MaxResults      *int     `json:"maxResults"`
		NextToken       string   `json:"nextToken"`
	}
	if !x.decodeAPI(body, &in) {
		return
	}
	if in.RegistryID == "" {
		in.RegistryID = x.caller.account
	}
	var out struct {
		Repositories []repositoryDetail `json:"repositories"`
		NextToken    string             `json:"nextToken,omitempty"`
	}
	const action = "ecr:DescribeRepositories"
	if len(in.RepositoryNames) > 0 {
		out.Repositories = []repositoryDetail{}
		for _, name := range in.RepositoryNames {
			owner, _, ok := s.reachAPI(x, action, repositoryID{in.RegistryID, name})
			if !ok {
				return
			}
			out.Repositories = append(out.Repositories, owner.repositoryDetails(name)...)
		}
		x.replyAPI(http.StatusOK, out)
		return
	}
	if !x.permit(action, arnOf(s.opts.Region, in.RegistryID, "*")) {
		return
	}
	details := []repositoryDetail{}
	if owner := s.aws.registry(in.RegistryID, s.opts.Region); owner != nil {
		details = owner.repositoryDetails()
	}
	out.Repositories, out.NextToken = page(x, details, in.MaxResults, in.NextToken,
		func(d repositoryDetail) string { return d.RepositoryName })
	if out.Repositories != nil {
		x.replyAPI(http.StatusOK, out)
	}
}

// repositoryDetails describes the repositories of these names, or all.
func (s *Server) repositoryDetails(names ...string) []repositoryDetail {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(s.repos))
	}
	details := []repositoryDetail{} // an array, even if empty
	for _, name := range names {
		repo := s.repos[name]
		d := repositoryDetail{
			RepositoryARN:      arnOf(s.opts.Region, s.opts.Account, name),
			RegistryID:         s.opts.Account,
			RepositoryName:     name,
			RepositoryURI:      s.Host() + "/" + name,
			CreatedAt:          apiTime(repo.created),
			ImageTagMutability: repo.mutability.String(),
		}
		for _, pattern := range repo.mutability.Except {
			d.ExclusionFilters = append(d.ExclusionFilters, exclusionFilter{"WILDCARD", pattern})
		}
		details = append(details, d)
	}
	return details
}

// ECR's pages of what it describes: what it gives unless asked, and what it
// refuses to exceed.
const (
	describedPage    = 100
	maxDescribedPage = 1000
)

// page returns a page of what is sorted by a key, and the opaque token of the
// next one. It returns nil where it has answered that the request is not good.
func page[T any](x *exchange, all []T, size *int, token string, key func(T) string) ([]T, string) {
	n := describedPage
	if size != nil {
		n = *size
	}
	last, err := base64.URLEncoding.DecodeString(token)
	if n < 1 || n > maxDescribedPage || err != nil {
		x.failAPI("InvalidParameterException", "Invalid parameter at 'maxResults' or 'nextToken' failed to satisfy constraint")
		return nil, ""
	}
	start, found := slices.BinarySearchFunc(all, string(last), func(e T, last string) int {
		return strings.Compare(key(e), last)
	})
	if found {
		start++
	}
	all = all[start:]
	if len(all) <= n {
		return all, ""
	}
	return all[:n], base64.URLEncoding.EncodeToString([]byte(key(all[n-1])))
}

// recordPull notes that an image was pulled. ECR refreshes what it has noted
// once it is a day old (API reference, ImageDetail).
func (s *Server) recordPull(repo *repository, m manifest) {
	const granularity = 24 * time.Hour
	now := s.opts.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := repo.states[m.digest]
	if ok && now.Sub(st.Pulled) >= granularity {
		st.Pulled = now
		repo.states[m.digest] = st
	}
}
