package upstream

import (
	"context"
	"log/slog"
	"net/http"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/ecr/denial"
	"github.com/larder-registry/larder/upstream/reply"
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
	source   *tokenSource
	api      *ecrAPI
	account  string // of the registry; empty means that of the credentials
	refusals *auth.Refusals
}

func (a *ecrAuth) Authorize(ctx context.Context, req *http.Request, _ string) (string, error) {
	token, err := a.source.get(ctx)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Basic "+token)
	return token, nil
}

func (a *ecrAuth) Accepted(used, _ string) { a.refusals.Accepted(used) }

// refused renews a token that ECR says is no good, once for each token. ECR says
// so by 401, by 400 without a challenge, and by 403 with a text that only an
// expired token gets; any other 403 is a real denial.
func (a *ecrAuth) Refused(ctx context.Context, resp *http.Response, used, _ string) (bool, error) {
	detail := reply.Detail(resp)
	switch resp.StatusCode {
	case http.StatusForbidden:
		if !strings.Contains(detail.Message, "token has expired") {
			a.refusals.Accepted(used)
			return false, nil
		}
	case http.StatusBadRequest:
		if detail.Message != "" && detail.Code != errcode.ErrorCodeDenied {
			return false, nil // it is about something else, such as an illegal tag
		}
	}
	if !a.refusals.Renew(used) {
		return false, nil
	}
	token, err := a.source.renew(ctx, used)
	a.refusals.Renewed(used, token)
	return err == nil, err
}

// credentialsError is an [auth.Error] that says what would allow what AWS denied.
type credentialsError struct{ error *auth.Error }

func newCredentialsError(what string, cause error) error {
	return &credentialsError{auth.NewError(what, cause)}
}

func (e *credentialsError) Error() string { return denial.Explain(e.error.Error()) }
func (e *credentialsError) Unwrap() error { return e.error }

// DenialAttrs is as that of [reply.Error].
func (e *credentialsError) DenialAttrs() []slog.Attr { return denial.Attrs(e.error.Error()) }

// authorizer gives requests to one registry their credentials. It is safe for
// concurrent use.
type authorizer interface {
	// Authorize sets the credentials, and returns what tells them apart from
	// later ones.
	Authorize(ctx context.Context, req *http.Request, repository string) (used string, err error)
	// Accepted records an answer that shows the credentials to be good.
	Accepted(used, repository string)
	// Refused looks at an answer of 400, 401 or 403, and reports whether there
	// are now other credentials to try. It leaves the body readable.
	Refused(ctx context.Context, resp *http.Response, used, repository string) (retry bool, err error)
}
