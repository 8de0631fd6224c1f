package ecr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/reply"
)

// Identity is the AWS identity of requests. The zero value is the one that the
// SDK's default chain finds: environment, web identity, profile (with roles, SSO
// and credential_process), container endpoint, instance metadata.
type Identity struct {
	// Profile is a profile of AWS's shared configuration files, which replaces the
	// chain.
	Profile string
	// RoleARN is a role to assume with the credentials of the chain or profile.
	RoleARN string
	// ExternalID and SessionName go with RoleARN. The name is "larder" if empty.
	ExternalID, SessionName string
}

// defaultSessionName is the name of sessions in CloudTrail.
const defaultSessionName = "larder"

// session is an identity in one region and with one kind of endpoints. Nothing is
// read or asked before the first use. It is safe for concurrent use.
type session struct {
	identity        Identity
	region          string // of the registry
	fips, dualStack bool
	client          aws.HTTPClient
	patient         func(aws.HTTPClient) aws.HTTPClient // wraps client for everything but the search for credentials
	search          time.Duration                       // bounds each request of a search for credentials
	log             *slog.Logger

	mu  sync.Mutex // guards cfg; not held while it is made
	cfg *aws.Config
}

// config returns the configuration for the SDK's clients. Its region is s.region.
func (s *session) config(ctx context.Context) (*aws.Config, error) {
	s.mu.Lock()
	cfg := s.cfg
	s.mu.Unlock()
	if cfg != nil {
		return cfg, nil
	}
	made, err := s.load(ctx)
	if err != nil {
		return nil, newCredentialsError("load the AWS configuration", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg == nil { // a concurrent caller may have been faster
		s.cfg = &made
	}
	return s.cfg, nil
}

// load runs the SDK's chain. STS and SSO are asked in the region of the environment
// or the profile, as by any other AWS tool: a network without a way out has its
// endpoint there. Without one, it is the registry's own region.
func (s *session) load(ctx context.Context) (aws.Config, error) {
	options := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithDefaultRegion(s.region),
		awsconfig.WithHTTPClient(s.client),
		awsconfig.WithLogger(logging.LoggerFunc(s.logf)), // the SDK's own goes to stderr
		awsconfig.WithRetryer(shortPauses),
		awsconfig.WithAPIOptions([]func(*middleware.Stack) error{s.bound}),
	}
	if s.identity.Profile != "" {
		options = append(options, awsconfig.WithSharedConfigProfile(s.identity.Profile))
	}
	if s.fips {
		options = append(options, awsconfig.WithUseFIPSEndpoint(aws.FIPSEndpointStateEnabled))
	}
	if s.dualStack {
		options = append(options, awsconfig.WithUseDualStackEndpoint(aws.DualStackEndpointStateEnabled))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, err
	}
	cfg.HTTPClient = s.patient(cfg.HTTPClient) // after AWS_CA_BUNDLE, for which the SDK wants its own kind
	cfg.Credentials = aws.NewCredentialsCache(quiet{cfg.Credentials})
	if s.identity.RoleARN != "" {
		cfg.Credentials = aws.NewCredentialsCache(s.role(cfg))
	}
	cfg.Region = s.region
	return cfg, nil
}

// bound has each operation of the SDK end after a time, and refuses answers of 1xx before
// anything reads their bodies. It is for the search for credentials, which is not patient, as
// the SDK wants its own kind of HTTP client, and which has no deadline of a caller: the
// SDK's caches share its result, and take the deadlines away.
func (s *session) bound(stack *middleware.Stack) error {
	end := func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (
		middleware.InitializeOutput, middleware.Metadata, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, s.search, reply.ErrTimeout)
		defer cancel()
		return next.HandleInitialize(ctx, in)
	}
	check := func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
		middleware.DeserializeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleDeserialize(ctx, in)
		if resp, ok := out.RawResponse.(*smithyhttp.Response); ok && err == nil {
			err = guard.CheckFinal(resp.Response)
		}
		return out, metadata, err
	}
	return errors.Join(
		stack.Initialize.Add(middleware.InitializeMiddlewareFunc("LarderTimeout", end), middleware.Before),
		stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("LarderCheckFinal", check), middleware.After),
	)
}

// quiet is credentials whose errors do not show what a credential_process wrote: the
// SDK quotes output that it cannot read.
type quiet struct{ aws.CredentialsProvider }

var errProcessOutput = errors.New("credential_process: its output is not credentials in JSON; run it by hand to see it")

// Retrieve is for aws.CredentialsProvider.
func (q quiet) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := q.CredentialsProvider.Retrieve(ctx)
	var process *processcreds.ProviderError
	var run *exec.ExitError
	ended := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	if errors.As(err, &process) && errors.Unwrap(process.Err) != nil && !ended && !errors.As(err, &run) {
		err = errProcessOutput
	}
	return found, err
}

// role assumes the identity's role with the credentials of cfg.
func (s *session) role(cfg aws.Config) aws.CredentialsProvider {
	client := sts.NewFromConfig(cfg, func(o *sts.Options) {
		if o.BaseEndpoint != nil {
			o.EndpointOptions.UseFIPSEndpoint, o.EndpointOptions.UseDualStackEndpoint = noKind()
		}
		if name.Partition(o.Region) != name.Partition(s.region) {
			o.Region = s.region // the environment's region does not know the role
		}
	})
	return stscreds.NewAssumeRoleProvider(client, s.identity.RoleARN, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = defaultSessionName
		if s.identity.SessionName != "" {
			o.RoleSessionName = s.identity.SessionName
		}
		if s.identity.ExternalID != "" {
			o.ExternalID = aws.String(s.identity.ExternalID)
		}
	})
}

// noKind is for a client whose endpoint is configured, here or in the SDK's
// environment. The SDK refuses a kind of endpoint beside it.
func noKind() (aws.FIPSEndpointState, aws.DualStackEndpointState) {
	return aws.FIPSEndpointStateDisabled, aws.DualStackEndpointStateDisabled
}

// logf logs the SDK's own messages.
func (s *session) logf(kind logging.Classification, format string, args ...any) {
	s.log.Debug("AWS SDK: "+fmt.Sprintf(format, args...), "kind", string(kind))
}

// forget has the chain run again at the next use if AWS itself refused a request:
// files may have been replaced since, and the clock by which credentials expire may
// be wrong.
func (s *session) forget(err error) {
	var refusal smithy.APIError
	if !errors.As(err, &refusal) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg = nil
}

// shortPauses ends the SDK's own retries within a second instead of a minute:
// clients wait, and tokens are asked for again later. A call is not repeated after a 429: the
// limiter of the API waits then, for all calls.
func shortPauses() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxBackoff = 200 * time.Millisecond
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(unlessTooMany)}, o.Retryables...)
	})
}

// unlessTooMany is [aws.FalseTernary] for an answer of status 429, and leaves all others to the SDK.
func unlessTooMany(err error) aws.Ternary {
	if isTooMany(err) {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}
