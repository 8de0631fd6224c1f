package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/semaphore"
)

// ecrAPI calls the ECR API of a region, with the credentials that the SDK's
// default chain finds at the first call. It is safe for concurrent use.
type ecrAPI struct {
	host     ecrHost
	endpoint string
	client   aws.HTTPClient
	timeout  time.Duration // of each call
	now      func() time.Time
	calls    *limiter // but for tokens, whose source has pauses of its own

	// reading lets one reading of lifecycle policies and images run at a time:
	// ECR publishes no quota for these calls, which other tools share.
	reading *semaphore.Weighted

	mu  sync.Mutex // guards api; a chain that failed is tried again
	api *ecr.Client
}

func (a *ecrAPI) connect(ctx context.Context) (*ecr.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.api != nil {
		return a.api, nil
	}
	cfg, err := a.config(ctx)
	if err != nil {
		return nil, err
	}
	a.api = ecr.NewFromConfig(*cfg, func(o *ecr.Options) {
		if a.endpoint != "" {
			o.BaseEndpoint = aws.String(a.endpoint)
		}
		if a.host.FIPS {
			o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
		}
		if a.host.DualStack {
			o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
		}
	})
	return a.api, nil
}

func (a *ecrAPI) config(ctx context.Context) (*aws.Config, error) {
	cfg, err := awsconfig.LoadDefaultConfig(ctx,
		awsconfig.WithRegion(a.host.Region),
		awsconfig.WithHTTPClient(a.client),
		awsconfig.WithRetryer(shortPauses))
	if err != nil {
		return nil, &credentialsError{"load the AWS configuration", err}
	}
	return &cfg, nil
}

// shortPauses has the SDK's own retries over within a second, where it would
// take up to a minute: clients wait, and the source asks again later anyway.
func shortPauses() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = 200 * time.Millisecond })
}

// callECR makes one call, within the timeout of a.
func callECR[In, Out any](ctx context.Context, a *ecrAPI, what string,
	call func(*ecr.Client, context.Context, *In, ...func(*ecr.Options)) (*Out, error), in *In) (*Out, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, errTimeout)
	defer cancel()
	api, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	sent, err := a.calls.wait(ctx, priorityOf(ctx, manifests), deadline)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	out, err := call(api, ctx, in)
	a.calls.learn(sent, apiRefusal(err))
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
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return e
	}
	switch answer.ErrorCode() {
	case "LifecyclePolicyNotFoundException", "RepositoryNotFoundException":
		e.kind = fs.ErrNotExist
	case "AccessDeniedException":
		e.kind = fs.ErrPermission
	}
	return e
}
