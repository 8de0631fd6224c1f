package ecrtest

import (
	"fmt"
	"net/http"
)

// SetLifecyclePolicy gives a repository, which it creates if need be, a policy
// text as it is. An empty one takes the policy away. RunLifecycle carries it out.
func (s *Server) SetLifecyclePolicy(repo, text string) error {
	if !repositoryName.MatchString(repo) {
		return fmt.Errorf("setting a lifecycle policy: %q is not a repository name", repo)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repository(repo).lifecycle = text
	return nil
}

func (s *Server) getLifecyclePolicy(x *exchange, body []byte) {
	var in repositoryID
	owner, repo, ok := s.readAPI(x, body, "ecr:GetLifecyclePolicy", &in, &in)
	if !ok {
		return
	}
	owner.mu.RLock()
	policy := repo.lifecycle
	owner.mu.RUnlock()
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
