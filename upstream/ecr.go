package upstream

import (
	"context"
	"net/http"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// ECRConfig has what an ECR registry's host does not tell.
type ECRConfig struct {
	// APIEndpoint is the URL of the ECR API. Empty means AWS's own.
	APIEndpoint string
	// Region is that of the registry. Empty means the one in its host's name.
	Region string
	// Identity says as whom tokens are got.
	Identity Identity
	// Replicas are the hosts of registries in other regions to which this one's
	// repositories are replicated, in the order in which they stand in for it.
	// Their own settings are those that Options.Lookup knows, if any; tokens for
	// them are got as the same Identity, unless they have another.
	Replicas []string
	// PullThrough are the prefixes of the registry's pull-through cache rules; ROOT
	// stands for all repositories.
	PullThrough []string
}

// ecrAuth authenticates at ECR with a token that all registries of a region
// share.
type ecrAuth struct {
	source  *tokenSource
	api     *ecrAPI
	account string // of the registry; empty means that of the credentials
	doubt   doubt
}

func (a *ecrAuth) authorize(ctx context.Context, req *http.Request, _ string) (string, error) {
	token, err := a.source.get(ctx)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Basic "+token)
	return token, nil
}

func (a *ecrAuth) accepted(used, _ string) { a.doubt.clear(used) }

// refused renews a token that ECR says is no good, once for each token. ECR says
// so by 401, by 400 without a challenge, and by 403 with a text that only an
// expired token gets; any other 403 is a real denial.
func (a *ecrAuth) refused(ctx context.Context, resp *http.Response, used, _ string) (bool, error) {
	detail := firstError(peek(resp))
	switch resp.StatusCode {
	case http.StatusForbidden:
		if !strings.Contains(detail.Message, "token has expired") {
			a.doubt.clear(used)
			return false, nil
		}
	case http.StatusBadRequest:
		if detail.Message != "" && detail.Code != errcode.ErrorCodeDenied {
			return false, nil // it is about something else, such as an illegal tag
		}
	}
	if !a.doubt.renews(used) {
		return false, nil
	}
	token, err := a.source.renew(ctx, used)
	a.doubt.renewed(used, token)
	return err == nil, err
}
