package ecr

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/lifecycle"
	"github.com/larder-registry/larder/upstream/offline"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// Registry authenticates at one private registry with a token that all registries
// of a region share, and reads its settings. It is safe for concurrent use.
type Registry struct {
	account  *string // the registry's; nil means that of the credentials
	api      *api
	tokens   *tokens
	limiter  *pace.Limiter
	gate     *offline.Gate
	refusals *auth.Refusals

	exclusion atomic.Pointer[string] // what PullTimeExclusion last returned
}

func newRegistry(cfg Config, api *api, tokens *tokens, limiter *pace.Limiter, now func() time.Time) *Registry {
	r := &Registry{api: api, tokens: tokens, limiter: limiter, gate: cfg.Gate, refusals: auth.NewRefusals(now)}
	if cfg.Host.Account != "" {
		r.account = &cfg.Host.Account
	}
	return r
}

// Authorize sets the credentials of a request. used tells them apart from later
// ones.
func (r *Registry) Authorize(ctx context.Context, req *http.Request, _ string) (used string, err error) {
	token, err := r.tokens.get(ctx)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Basic "+token)
	return token, nil
}

// Accepted records an answer that shows the credentials to be good.
func (r *Registry) Accepted(used, _ string) { r.refusals.Accepted(used) }

// Refused looks at an answer of 400, 401 or 403. If it says that the token has
// expired, Refused renews the token, once for each, and reports whether there is a
// new one. ECR says so by 401, by 400 without a challenge, and by 403 with a text
// that only an expired token gets; any other 403 is a denial. The body can be read
// again.
func (r *Registry) Refused(ctx context.Context, resp *http.Response, used, _ string) (retry bool, err error) {
	detail := reply.Detail(resp)
	switch resp.StatusCode {
	case http.StatusForbidden:
		if !saysExpired(detail.Message) {
			r.refusals.Accepted(used)
			return false, nil
		}
	case http.StatusBadRequest:
		if detail.Message != "" && detail.Code != errcode.ErrorCodeDenied && !saysExpired(detail.Message) {
			return false, nil // it is about something else, such as an illegal tag
		}
	}
	if !r.refusals.Renew(used) {
		return false, nil
	}
	token, err := r.tokens.renew(ctx, used)
	r.refusals.Renewed(used, token)
	return err == nil, err
}

// saysExpired reports ECR's texts about a token that has ended. There were several:
// "Your authorization token has expired. Reauthenticate and try again.", before that
// "Your Authorization Token has expired. Please run 'aws ecr get-login' to fetch a new
// one.", and "Your Authorization Token is invalid." (public reports).
func saysExpired(message string) bool {
	message = strings.ToLower(message)
	return strings.Contains(message, "token has expired") || strings.Contains(message, "token is invalid")
}

// Token returns the state of the token.
func (r *Registry) Token() Token { return r.tokens.state() }

// Lifecycle is a repository's lifecycle policy and what it applies to.
type Lifecycle struct {
	Policy lifecycle.Policy
	// Evaluated is when ECR last evaluated the policy; zero if it has not yet.
	Evaluated time.Time
	// Images are all images as ECR describes them, archived ones included. ECR does not
	// tell what an index lists, so Children is nil: [lifecycle.Policy.Unread] tells
	// which indexes are worth fetching. Nil means that the images were not read.
	Images []lifecycle.Image
}

// Calls returns how many calls of the API the reading took.
func (l Lifecycle) Calls() int {
	if l.Images == nil {
		return 1
	}
	return 1 + max(1, (len(l.Images)+imagePage-1)/imagePage)
}

// Lifecycle reads a repository's lifecycle policy and all its images. It does not
// read the images if ECR last evaluated the policy at the time seen; zero reads them
// in any case.
//
// The error is fs.ErrNotExist if there is no policy or no repository, and
// fs.ErrPermission if the credentials lack ecr:GetLifecyclePolicy or
// ecr:DescribeImages; [reply.IsThrottled] tells whether there were too many requests. One
// reading runs at a time in each region; others wait for it, or for ctx to end. It is an
// [offline.Error] while the registry is offline.
// Requests of clients go first.
func (r *Registry) Lifecycle(ctx context.Context, repository string, seen time.Time) (Lifecycle, error) {
	ctx, leave, err := r.gate.Enter(ctx)
	if err != nil {
		return Lifecycle{}, err
	}
	defer leave()
	if err := r.api.reading.Acquire(ctx, 1); err != nil {
		return Lifecycle{}, context.Cause(ctx)
	}
	defer r.api.reading.Release(1)
	ctx, cancel := context.WithTimeoutCause(pace.Background(ctx), lifecycleTimeout, reply.ErrTimeout)
	defer cancel()
	until, _ := ctx.Deadline()
	if _, err := r.limiter.Wait(ctx, pace.Manifests, until); err != nil { // a registry that throttles pulls is not asked for more
		return Lifecycle{}, err
	}
	read, err := readPolicy(ctx, r.api, r.account, repository)
	if err != nil {
		return Lifecycle{}, err
	}
	if !seen.IsZero() && read.Evaluated.Equal(seen) {
		return read, nil
	}
	if read.Images, err = readImages(ctx, r.api, r.account, repository); err != nil {
		return Lifecycle{}, err
	}
	return read, nil
}

// Pushed reads when an image was pushed, by its digest. The error is fs.ErrNotExist if there is no such
// image, and fs.ErrPermission if the credentials lack ecr:DescribeImages. It is an [offline.Error]
// while the registry is offline.
func (r *Registry) Pushed(ctx context.Context, repository string, dgst digest.Digest) (time.Time, error) {
	ctx, leave, err := r.gate.Enter(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer leave()
	return readPushed(ctx, r.api, r.account, repository, dgst)
}

// TagMutabilities reads which tags of repositories can be moved, in one call for 1 to
// [MaxRepositories]. The error is fs.ErrNotExist if one of them does not exist, and
// fs.ErrPermission if the credentials lack ecr:DescribeRepositories for one of them. It is
// an [offline.Error] while the registry is offline. Requests of clients go first.
func (r *Registry) TagMutabilities(ctx context.Context, repositories []string) (map[string]TagMutability, error) {
	ctx, leave, err := r.gate.Enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return readTagMutabilities(pace.Background(ctx), r.api, r.account, repositories)
}

// Diagnosis returns the steps for "larder doctor".
func (r *Registry) Diagnosis() Diagnosis { return Diagnosis{r.api} }
