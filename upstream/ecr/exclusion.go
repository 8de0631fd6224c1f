package ecr

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

const (
	// exclusionPage is the largest page that ECR gives (API reference,
	// ListPullTimeUpdateExclusions), and maxExclusionPages bounds the pages.
	exclusionPage     = 1000
	maxExclusionPages = 10
)

// PullTimeExclusion returns the principal in the registry's list of pull-time update
// exclusions whose credentials these are: ECR does not record their pulls. It is "" if
// there is none. ECR shows the list of the credentials' own account only, so that it is
// "" as well for a registry of another account.
//
// The error is fs.ErrPermission if the credentials lack
// ecr:ListPullTimeUpdateExclusions, and an [offline.Error] while the registry is offline.
// STS is asked whose the credentials are, if anybody is excluded. Requests of clients go
// first.
func (r *Registry) PullTimeExclusion(ctx context.Context) (principal string, err error) {
	ctx, leave, err := r.gate.Enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	all, err := readExclusions(pace.Background(ctx), r.api)
	if err != nil {
		return "", err
	}
	if len(all) > 0 {
		ctx, cancel := context.WithTimeoutCause(ctx, r.api.timeout, reply.ErrTimeout)
		defer cancel()
		caller, err := r.Diagnosis().Caller(ctx)
		if err != nil {
			return "", err
		}
		if r.account == nil || caller.Account() == *r.account {
			principal = caller.among(all)
		}
	}
	r.exclusion.Store(&principal)
	return principal, nil
}

// Excluded returns what PullTimeExclusion returned when it last had an answer.
func (r *Registry) Excluded() (principal string) {
	if last := r.exclusion.Load(); last != nil {
		return *last
	}
	return ""
}

// readExclusions returns the whole list of the credentials' account.
func readExclusions(ctx context.Context, a *api) (all []string, err error) {
	const what = "list the pull-time update exclusions"
	in := &ecr.ListPullTimeUpdateExclusionsInput{MaxResults: aws.Int32(exclusionPage)}
	for range maxExclusionPages {
		page, err := call(ctx, a, what, (*ecr.Client).ListPullTimeUpdateExclusions, in)
		if err != nil {
			return nil, err
		}
		all = append(all, page.PullTimeUpdateExclusions...)
		if aws.ToString(page.NextToken) == "" {
			return all, nil
		}
		in.NextToken = page.NextToken
	}
	return nil, fmt.Errorf("%s: more than %d pages", what, maxExclusionPages)
}

// Account returns the account of the identity, or "" if STS did not tell.
func (c Caller) Account() string {
	own, err := arn.Parse(c.ARN)
	if err != nil {
		return ""
	}
	return own.AccountID
}

// among returns the principal, a user or a role, that the caller is, or "".
func (c Caller) among(principals []string) string {
	own, err := arn.Parse(c.ARN)
	if err != nil {
		return ""
	}
	i := slices.IndexFunc(principals, func(principal string) bool {
		named, err := arn.Parse(principal)
		return principal == c.ARN || err == nil && isSession(own, named)
	})
	if i < 0 {
		return ""
	}
	return principals[i]
}

// isSession reports whether an identity is a session of a role. STS leaves the role's
// path out: arn:aws:sts::123456789012:assumed-role/pull/node-1 is one of
// arn:aws:iam::123456789012:role/nodes/pull.
func isSession(session, role arn.ARN) bool {
	of, isSession := strings.CutPrefix(session.Resource, "assumed-role/")
	name, _, _ := strings.Cut(of, "/")
	pathOf, isRole := strings.CutPrefix(role.Resource, "role/")
	return isSession && isRole && session.Partition == role.Partition && session.AccountID == role.AccountID &&
		name == path.Base(pathOf)
}
