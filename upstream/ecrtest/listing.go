package ecrtest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ECR's pages of tags and repositories: what it gives unless asked, and what it refuses to exceed.
const (
	tagsPage    = 100
	maxTagsPage = 1000
)

// answerTags sends a page of tags. The type is text/plain, as ECR has it.
func (s *Server) answerTags(x *exchange, repo *repository, name string) {
	s.mu.RLock()
	tags := slices.Sorted(maps.Keys(repo.tags))
	s.mu.RUnlock()
	if tags, ok := x.listed(tags, "/v2/"+name+"/tags/list"); ok {
		x.replyJSON(http.StatusOK, listType, struct {
			Name string   `json:"name"`
			Tags []string `json:"tags"`
		}{name, tags})
	}
}

// answerCatalog sends a page of the repositories.
func (s *Server) answerCatalog(x *exchange) {
	const action = "ecr:DescribeRepositories"
	if why := judge(x.caller, action, arnOf(s.opts.Region, s.opts.Account, "*"), s.opts.Account, nil); why != "" {
		x.fail(http.StatusForbidden, "DENIED", why)
		return
	}
	s.mu.RLock()
	names := slices.Sorted(maps.Keys(s.repos))
	s.mu.RUnlock()
	if names, ok := x.listed(names, catalogPath); ok {
		x.replyJSON(http.StatusOK, listType, struct {
			Repositories []string `json:"repositories"`
		}{names})
	}
}

const listType = "text/plain; charset=utf-8"

// listed returns the page of sorted names that is asked for, and links to the
// next one: where that begins is opaque, in an absolute URL. It answers what is
// not a good question, and tells whether it was one.
func (x *exchange) listed(names []string, path string) ([]string, bool) {
	query := x.r.URL.Query()
	n := tagsPage
	if query.Has("n") {
		var err error
		if n, err = strconv.Atoi(query.Get("n")); err != nil || n < 1 {
			x.fail(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "invalid number of results requested")
			return nil, false
		}
		if n > maxTagsPage {
			x.fail(http.StatusMethodNotAllowed, "UNSUPPORTED", "Invalid parameter at 'maxResults' failed to satisfy "+
				"constraint: 'Member must have value less than or equal to 1000'")
			return nil, false
		}
	}
	last, err := base64.URLEncoding.DecodeString(query.Get("last"))
	if err != nil {
		x.fail(http.StatusBadRequest, "UNSUPPORTED", "Invalid parameter at 'nextToken' failed to satisfy constraint")
		return nil, false
	}
	start, found := slices.BinarySearch(names, string(last))
	if found {
		start++
	}
	names = names[start:]
	if len(names) > n {
		names = names[:n]
		next := url.Values{
			"last": {base64.URLEncoding.EncodeToString([]byte(names[n-1]))},
			"n":    {strconv.Itoa(n)},
		}
		x.Header().Set("Link", fmt.Sprintf(`<%s://%s%s?%s>; rel="next"`, scheme(x.r), x.r.Host, path, next.Encode()))
	}
	return names, true
}

func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// answerReferrers sends an index of what has a digest for its subject, an
// empty one if there is nothing.
func (s *Server) answerReferrers(x *exchange, repo *repository, ref string) {
	if s.opts.NoReferrers {
		x.reply(http.StatusNotFound, "", nil)
		return
	}
	subject, err := digest.Parse(ref)
	if err != nil {
		x.fail(http.StatusBadRequest, "DIGEST_INVALID", "invalid digest")
		return
	}
	s.mu.RLock()
	referrers := slices.Clone(repo.referrers[subject])
	s.mu.RUnlock()
	if kind := x.r.URL.Query().Get("artifactType"); kind != "" {
		x.Header().Set("OCI-Filters-Applied", "artifactType")
		referrers = slices.DeleteFunc(referrers, func(d ocispec.Descriptor) bool { return d.ArtifactType != kind })
	}
	x.replyJSON(http.StatusOK, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: append([]ocispec.Descriptor{}, referrers...), // "manifests" is an array, even if empty
	})
}

// referrer returns the subject of a manifest and how an index of that one's
// referrers lists it, if it has a subject.
func (m manifest) referrer() (subject digest.Digest, desc ocispec.Descriptor, ok bool) {
	var doc struct {
		ArtifactType string              `json:"artifactType"`
		Config       ocispec.Descriptor  `json:"config"`
		Subject      *ocispec.Descriptor `json:"subject"`
		Annotations  map[string]string   `json:"annotations"`
	}
	if json.Unmarshal(m.raw, &doc) != nil || doc.Subject == nil {
		return "", ocispec.Descriptor{}, false
	}
	if doc.ArtifactType == "" {
		doc.ArtifactType = doc.Config.MediaType
	}
	return doc.Subject.Digest, ocispec.Descriptor{
		MediaType:    m.mediaType,
		Digest:       m.digest,
		Size:         int64(len(m.raw)),
		ArtifactType: doc.ArtifactType,
		Annotations:  doc.Annotations,
	}, true
}
