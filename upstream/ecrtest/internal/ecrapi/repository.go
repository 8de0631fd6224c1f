package ecrapi

import "github.com/larder-registry/larder/upstream/ecrtest/internal/registry"

// repositoryName names a repository in calls and answers.
type repositoryName struct {
	RegistryID     string `json:"registryId"` // in a call, empty means the caller's account
	RepositoryName string `json:"repositoryName"`
}

// repositoryDetail is a repository in the answer of DescribeRepositories.
type repositoryDetail struct {
	repositoryName
	RepositoryARN      string            `json:"repositoryArn"`
	RepositoryURI      string            `json:"repositoryUri"`
	CreatedAt          float64           `json:"createdAt"`
	ImageTagMutability string            `json:"imageTagMutability"`
	ExclusionFilters   []exclusionFilter `json:"imageTagMutabilityExclusionFilters,omitempty"`
}

// exclusionFilter is a pattern of tags that the mutability setting excepts.
type exclusionFilter struct {
	FilterType string `json:"filterType"`
	Filter     string `json:"filter"`
}

func newRepositoryDetail(owner *registry.Registry, name string, repo *registry.Repository) repositoryDetail {
	mutability := repo.TagMutability()
	d := repositoryDetail{
		repositoryName:     repositoryName{owner.Account(), name},
		RepositoryARN:      owner.ARN(name),
		RepositoryURI:      owner.Host() + "/" + name,
		CreatedAt:          timestamp(repo.Created()),
		ImageTagMutability: mutability.String(),
	}
	for _, pattern := range mutability.Except {
		d.ExclusionFilters = append(d.ExclusionFilters, exclusionFilter{"WILDCARD", pattern})
	}
	return d
}
