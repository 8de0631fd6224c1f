package ecr

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
)

// Replication is what ECR replicates from the registry of an account.
type Replication struct {
	// Account is the registry's.
	Account string
	Rules   []ReplicationRule
}

// ReplicationRule says that repositories are replicated to a registry, under the same
// names.
type ReplicationRule struct {
	// Account and Region are of the registry.
	Account, Region string
	// Prefixes are of the names of the repositories; none means all repositories.
	Prefixes []string
}

// Replication reads the replication rules of the registry of the credentials' account in
// the region. ECR shows those of no other account. The error is fs.ErrPermission if the
// credentials lack ecr:DescribeRegistry.
func (d Diagnosis) Replication(ctx context.Context) (Replication, error) {
	out, err := call(ctx, d.api, "describe the registry", (*ecr.Client).DescribeRegistry, &ecr.DescribeRegistryInput{})
	if err != nil {
		return Replication{}, err
	}
	r := Replication{Account: aws.ToString(out.RegistryId)}
	if out.ReplicationConfiguration == nil {
		return r, nil
	}
	for _, rule := range out.ReplicationConfiguration.Rules {
		prefixes, known := prefixesOf(rule)
		for _, to := range rule.Destinations {
			if known {
				r.Rules = append(r.Rules, ReplicationRule{aws.ToString(to.RegistryId), aws.ToString(to.Region), prefixes})
			}
		}
	}
	return r, nil
}

// prefixesOf returns the prefixes of the repositories that a rule is for, and whether its
// filters are known.
func prefixesOf(rule types.ReplicationRule) (prefixes []string, known bool) {
	for _, filter := range rule.RepositoryFilters {
		if filter.FilterType != types.RepositoryFilterTypePrefixMatch {
			return nil, false
		}
		prefixes = append(prefixes, aws.ToString(filter.Filter))
	}
	return prefixes, true
}
