package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/semaphore"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// ecrAPI calls the ECR API of a region. It is safe for concurrent use.
type ecrAPI struct {
	session  *awsSession
	endpoint string        // "" means AWS's own
	timeout  time.Duration // of each call
	now      func() time.Time
	caller   *caller       // nil counts nothing
	calls    *pace.Limiter // but for tokens, whose source has pauses of its own

	// reading lets one reading of lifecycle policies and images run at a time:
	// ECR publishes no quota for these calls, which other tools share.
	reading *semaphore.Weighted
}

func (a *ecrAPI) connect(ctx context.Context) (*ecr.Client, error) {
	cfg, err := a.session.config(ctx)
	if err != nil {
		return nil, err
	}
	return ecr.NewFromConfig(*cfg, func(o *ecr.Options) {
		if a.endpoint != "" {
			o.BaseEndpoint = aws.String(a.endpoint)
		}
		if o.BaseEndpoint != nil {
			o.EndpointOptions.UseFIPSEndpoint, o.EndpointOptions.UseDualStackEndpoint = noKind()
		}
	}), nil
}

// token calls GetAuthorizationToken.
func (a *ecrAPI) token(ctx context.Context) (ecrToken, error) {
	what := "get an ECR token for " + a.session.region
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, reply.ErrTimeout)
	defer cancel()
	api, err := a.connect(ctx)
	if err != nil {
		return ecrToken{}, err
	}
	asked := a.now()
	ctx, end := a.caller.api(ctx, "ECR GetAuthorizationToken")
	out, err := api.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	end(err)
	if err != nil {
		a.session.forget(err)
		return ecrToken{}, newCredentialsError(what, err)
	}
	if len(out.AuthorizationData) == 0 || aws.ToString(out.AuthorizationData[0].AuthorizationToken) == "" {
		return ecrToken{}, auth.NewError(what, auth.ErrNoToken)
	}
	data := out.AuthorizationData[0]
	return ecrToken{
		value:    *data.AuthorizationToken,
		obtained: asked,
		life:     tokenLife(data.ExpiresAt, out.ResultMetadata, asked),
	}, nil
}

// callECR makes one call, within the timeout of a.
func callECR[In, Out any](ctx context.Context, a *ecrAPI, what string,
	call func(*ecr.Client, context.Context, *In, ...func(*ecr.Options)) (*Out, error), in *In) (*Out, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, reply.ErrTimeout)
	defer cancel()
	api, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	sent, err := a.calls.Wait(ctx, pace.PriorityOf(ctx, pace.Manifests), deadline)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	ctx, end := a.caller.api(ctx, "ECR API call")
	out, err := call(api, ctx, in)
	end(err)
	if apiThrottled(err) {
		a.calls.Refused(sent, pace.Refusal{Err: err, Throttled: true})
	} else {
		a.calls.Succeeded()
	}
	if err != nil {
		return nil, newAPIError(ctx, what, err)
	}
	return out, nil
}

// apiError is a call of the ECR API that failed. It does not unwrap to its
// cause: credentials whose file does not exist must not read as a policy that
// does not exist.
type apiError struct {
	what  string
	cause error
	kind  error // fs.ErrNotExist, fs.ErrPermission, why the call ended early, or nil
}

func (e *apiError) Error() string { return fmt.Sprintf("%s: %v", e.what, e.cause) }
func (e *apiError) Unwrap() error { return e.kind }

// newAPIError makes an error of what a call with ctx returned.
func newAPIError(ctx context.Context, what string, err error) *apiError {
	e := &apiError{what: what, cause: err, kind: context.Cause(ctx)}
	var refusal smithy.APIError
	if !errors.As(err, &refusal) {
		return e
	}
	switch refusal.ErrorCode() {
	case "LifecyclePolicyNotFoundException", "RepositoryNotFoundException":
		e.kind = fs.ErrNotExist
	case "AccessDeniedException":
		e.kind = fs.ErrPermission
	}
	return e
}
