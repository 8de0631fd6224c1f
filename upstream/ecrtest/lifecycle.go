package ecrtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
)

// SetLifecyclePolicy gives a repository, which it creates if need be, a policy
// text as it is. An empty one takes the policy away. Nothing evaluates it.
func (s *Server) SetLifecyclePolicy(repo, text string) error {
	if !repositoryName.MatchString(repo) {
		return fmt.Errorf("setting a lifecycle policy: %q is not a repository name", repo)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repository(repo).policy = text
	return nil
}

// repositoryID is how calls name a repository.
type repositoryID struct {
	RegistryID     string `json:"registryId"` // this registry's if empty
	RepositoryName string `json:"repositoryName"`
}

// readAPI answers a call that is not of the form of in, or that is about a
// repository that does not exist, and tells whether it is neither.
func (s *Server) readAPI(x *exchange, body []byte, in any, id *repositoryID) (*repository, bool) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields() // which this server would have to heed
	if err := dec.Decode(in); err != nil {
		x.failAPI("InvalidParameterException", err.Error())
		return nil, false
	}
	if id.RegistryID == "" {
		id.RegistryID = s.opts.Account
	}
	s.mu.RLock()
	repo := s.repos[id.RepositoryName]
	s.mu.RUnlock()
	if repo == nil || id.RegistryID != s.opts.Account {
		x.failAPI("RepositoryNotFoundException", fmt.Sprintf(
			"The repository with name '%s' does not exist in the registry with id '%s'", id.RepositoryName, id.RegistryID))
		return nil, false
	}
	return repo, true
}

func (s *Server) getLifecyclePolicy(x *exchange, body []byte) {
	var in repositoryID
	repo, ok := s.readAPI(x, body, &in, &in)
	if !ok {
		return
	}
	s.mu.RLock()
	policy := repo.policy
	s.mu.RUnlock()
	if policy == "" {
		x.failAPI("LifecyclePolicyNotFoundException", fmt.Sprintf(
			"Lifecycle policy does not exist for the repository with name '%s' in the registry with id '%s'",
			in.RepositoryName, in.RegistryID))
		return
	}
	x.replyAPI(http.StatusOK, struct {
		repositoryID
		LifecyclePolicyText string `json:"lifecyclePolicyText"`
	}{in, policy})
}
