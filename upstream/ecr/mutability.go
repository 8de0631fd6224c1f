package ecr

import (
	"context"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/larder-registry/larder/upstream/name"
)

// TagMutability says which tags of a repository can be moved to another image. The
// zero value says that all can.
type TagMutability struct {
	immutable bool     // except for the tags that a pattern matches
	except    []string // patterns of name.Glob
}

// Immutable reports whether an existing tag cannot be moved. It can be deleted.
func (m TagMutability) Immutable(tag string) bool {
	excluded := slices.ContainsFunc(m.except, func(pattern string) bool { return name.Glob(pattern, tag) })
	return m.immutable != excluded
}

// Equal reports whether two say the same.
func (m TagMutability) Equal(other TagMutability) bool {
	return m.immutable == other.immutable && slices.Equal(m.except, other.except)
}

// readTagMutability reads the setting of a repository. A nil account means that of
// the credentials.
func readTagMutability(ctx context.Context, a *api, account *string, repository string) (TagMutability, error) {
	in := &ecr.DescribeRepositoriesInput{RegistryId: account, RepositoryNames: []string{repository}}
	what := "describe the repository " + repository
	out, err := call(ctx, a, what, (*ecr.Client).DescribeRepositories, in)
	if err != nil {
		return TagMutability{}, err
	}
	if len(out.Repositories) != 1 || aws.ToString(out.Repositories[0].RepositoryName) != repository {
		return TagMutability{}, fmt.Errorf("%s: the answer is about another repository", what)
	}
	return newTagMutability(out.Repositories[0]), nil
}

// newTagMutability treats tags as mutable if it does not know the setting. In a
// filter a * stands for any characters, or none (user guide, "Preventing image tags
// from being overwritten").
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
