package ecr

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/semaphore"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
	"github.com/larder-registry/larder/upstream/telemetry"
)

// api calls the ECR API of a region. It is safe for concurrent use.
type api struct {
	session  *session
	endpoint string        // "" means AWS's own
	timeout  time.Duration // of each call
	now      func() time.Time
	counter  *telemetry.Upstream
	limiter  *pace.Limiter // not for tokens, which have pauses of their own
	signer   *pace.Limiter // of AWS Signer

	// reading lets one reading of lifecycle policies and images run at a time:
	// ECR publishes no quota for these calls, which other tools share.
	reading *semaphore.Weighted
}

// searchTimeouts is how many times the timeout of a call a request for credentials may take. By
// default that is a minute, as the SDK allows a credential_process.
const searchTimeouts = 3

func newAPI(cfg Config, opts Options) *api {
	a := &api{
		session: &session{
			identity:  cfg.Identity,
			region:    cfg.Host.Region,
			fips:      cfg.Host.FIPS,
			dualStack: cfg.Host.DualStack,
			client:    opts.HTTP,
			search:    searchTimeouts * cfg.Timeout,
			log:       opts.Log,
		},
		endpoint: cfg.APIEndpoint,
		timeout:  cfg.Timeout,
		now:      opts.Now,
		counter:  opts.Telemetry.Upstream("ECR API " + opts.Telemetry.Region(cfg.Host.Region)),
		limiter:  pace.NewLimiter("the ECR API of "+cfg.Host.Region, 0),
		signer:   pace.NewLimiter("AWS Signer for the registries of "+cfg.Host.Region, 0),
		reading:  semaphore.NewWeighted(1),
	}
	a.session.patient = func(by aws.HTTPClient) aws.HTTPClient {
		return &patientClient{by, opts.Places, cfg.Timeout, a.counter}
	}
	return a
}

func (a *api) connect(ctx context.Context) (*ecr.Client, error) {
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

// privateToken calls GetAuthorizationToken of private ECR.
func (a *api) privateToken(ctx context.Context) (token, error) {
	what := "get an ECR token for " + a.session.region
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, reply.ErrTimeout)
	defer cancel()
	client, err := a.connect(ctx)
	if err != nil {
		return token{}, err
	}
	asked := a.now()
	ctx, end := a.counter.BeginAPI(ctx, "ECR GetAuthorizationToken")
	out, err := client.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	err = withoutSecrets(err)
	end(err, isThrottled(err))
	if err != nil {
		a.session.forget(err)
		return token{}, newCredentialsError(what, err)
	}
	if len(out.AuthorizationData) == 0 || aws.ToString(out.AuthorizationData[0].AuthorizationToken) == "" {
		return token{}, auth.NewError(what, auth.ErrNoToken)
	}
	data := out.AuthorizationData[0]
	return token{
		value:    *data.AuthorizationToken,
		obtained: asked,
		life:     tokenLife(data.ExpiresAt, out.ResultMetadata, asked),
	}, nil
}

// publicToken calls ECR Public's GetAuthorizationToken.
func (a *api) publicToken(ctx context.Context) (token, error) {
	const what = "get a token for ECR Public"
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, reply.ErrTimeout)
	defer cancel()
	cfg, err := a.session.config(ctx)
	if err != nil {
		return token{}, err
	}
	client := ecrpublic.NewFromConfig(*cfg, func(o *ecrpublic.Options) {
		if a.endpoint != "" {
			o.BaseEndpoint = aws.String(a.endpoint)
		}
		if o.BaseEndpoint != nil {
			o.EndpointOptions.UseFIPSEndpoint, o.EndpointOptions.UseDualStackEndpoint = noKind()
		}
	})
	asked := a.now()
	ctx, end := a.counter.BeginAPI(ctx, "ECR Public GetAuthorizationToken")
	out, err := client.GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
	err = withoutSecrets(err)
	end(err, isThrottled(err))
	if err != nil {
		a.session.forget(err)
		return token{}, newCredentialsError(what, err)
	}
	if out.AuthorizationData == nil || aws.ToString(out.AuthorizationData.AuthorizationToken) == "" {
		return token{}, auth.NewError(what, auth.ErrNoToken)
	}
	return token{
		value:    *out.AuthorizationData.AuthorizationToken,
		obtained: asked,
		life:     tokenLife(out.AuthorizationData.ExpiresAt, out.ResultMetadata, asked),
	}, nil
}

// call makes one call, within the timeout of a.
func call[In, Out any](ctx context.Context, a *api, what string,
	do func(*ecr.Client, context.Context, *In, ...func(*ecr.Options)) (*Out, error), in *In) (*Out, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, a.timeout, reply.ErrTimeout)
	defer cancel()
	client, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	sent, err := a.limiter.Wait(ctx, pace.Manifests, deadline)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	ctx, end := a.counter.BeginAPI(ctx, "ECR API call")
	out, err := do(client, ctx, in)
	err = withoutSecrets(err)
	throttled := isThrottled(err)
	end(err, throttled)
	var answered smithy.APIError
	switch {
	case throttled:
		a.limiter.Refused(sent, pace.Refusal{Err: err, Throttled: true})
	case err == nil, errors.As(err, &answered):
		a.limiter.Succeeded()
	}
	if err != nil {
		return nil, newAPIError(ctx, what, err)
	}
	return out, nil
}

// isThrottled reports the error of a call for too many requests. A 429 counts
// without one of the SDK's codes, too: an endpoint or a proxy in between may have
// sent it.
func isThrottled(err error) bool {
	codes := retry.ThrottleErrorCode{Codes: retry.DefaultThrottleErrorCodes}
	return isTooMany(err) || codes.IsErrorThrottle(err) == aws.TrueTernary
}

// isTooMany reports whether an answer has status 429.
func isTooMany(err error) bool {
	var refusal *awshttp.ResponseError
	return errors.As(err, &refusal) && refusal.HTTPStatusCode() == http.StatusTooManyRequests
}
