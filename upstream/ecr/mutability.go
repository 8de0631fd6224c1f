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

// MaxRepositories is how many repositories one call can be about (API reference,
// DescribeRepositories).
const MaxRepositories = 100

// readTagMutabilities reads the settings of repositories in one call. A nil account means
// that of the credentials.
func readTagMutabilities(ctx context.Context, a *api, account *string, repositories []string) (map[string]TagMutability, error) {
	in := &ecr.DescribeRepositoriesInput{RegistryId: account, RepositoryNames: repositories}
	what := "describe the repository " + repositories[0]
	if more := len(repositories) - 1; more > 0 {
		what += fmt.Sprintf(" and %d more", more)
	}
	out, err := call(ctx, a, what, (*ecr.Client).DescribeRepositories, in)
	if err != nil {
		return nil, err
	}
	read := make(map[string]TagMutability, len(repositories))
	for _, described := range out.Repositories {
		read[aws.ToString(described.RepositoryName)] = newTagMutability(described)
	}
	for _, repository := range repositories {
		if _, ok := read[repository]; !ok {
			return nil, fmt.Errorf("%s: the answer is not about %s", what, repository)
		}
	}
	return read, nil
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
