package upstream

import (
	"context"
	"fmt"
	"io/fs"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/pace"
)

// TagMutability says which tags of a repository can be moved to another image.
// By its zero value all can.
type TagMutability struct {
	immutable bool     // except for the tags that a pattern matches
	except    []string // patterns of name.Glob
}

// Immutable tells whether a tag that exists stays where it is, for as long as
// nobody deletes it.
func (m TagMutability) Immutable(tag string) bool {
	excluded := slices.ContainsFunc(m.except, func(pattern string) bool { return name.Glob(pattern, tag) })
	return m.immutable != excluded
}

// Equal tells whether two say the same.
func (m TagMutability) Equal(other TagMutability) bool {
	return m.immutable == other.immutable && slices.Equal(m.except, other.except)
}

// TagMutability reads which tags of a repository can be moved. It is
// fs.ErrNotExist where there is no such repository, or the upstream has no ECR
// authentication, and fs.ErrPermission where the credentials lack
// ecr:DescribeRepositories. It is in the background of what clients wait for.
func (r *Registry) TagMutability(ctx context.Context, repository string) (TagMutability, error) {
	auth, ok := r.auth.(*ecrAuth)
	if !ok {
		return TagMutability{}, fmt.Errorf("tag mutability at %s: %w", r.host, fs.ErrNotExist)
	}
	in := &ecr.DescribeRepositoriesInput{RepositoryNames: []string{repository}}
	if auth.account != "" {
		in.RegistryId = &auth.account
	}
	what := "describe the repository " + repository
	out, err := callECR(pace.Background(ctx), auth.api, what, (*ecr.Client).DescribeRepositories, in)
	if err != nil {
		return TagMutability{}, err
	}
	if len(out.Repositories) != 1 || aws.ToString(out.Repositories[0].RepositoryName) != repository {
		return TagMutability{}, fmt.Errorf("%s: the answer is about something else", what)
	}
	return newTagMutability(out.Repositories[0]), nil
}

// newTagMutability has tags count as movable where it does not know what ECR
// says. In a filter a * stands for anything, or nothing (user guide, "Preventing
// image tags from being overwritten").
func newTagMutability(r types.Repository) TagMutability {
	var m TagMutability
	switch r.ImageTagMutability {
	case types.ImageTagMutabilityImmutable:
		return TagMutability{immutable: true}
	case types.ImageTagMutabilityImmutableWithExclusion:
		m.immutable = true
	case types.ImageTagMutabilityMutableWithExclusion:
	default:
		return TagMutability{}
	}
	for _, filter := range r.ImageTagMutabilityExclusionFilters {
		switch {
		case filter.FilterType == types.ImageTagMutabilityExclusionFilterTypeWildcard:
			m.except = append(m.except, aws.ToString(filter.Filter))
		case m.immutable:
			return TagMutability{} // it may exclude any tag
		}
	}
	return m
}
