package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
)

// Identity says as whom AWS is asked. The zero value is whoever the SDK's
// default chain finds: environment, web identity, profile (with roles, SSO and
// credential_process), container endpoint, instance metadata.
type Identity struct {
	// Profile is the profile of AWS's shared configuration files to start from,
	// in place of the chain.
	Profile string
	// RoleARN is a role to assume with what the chain or the profile gives.
	RoleARN string
	// ExternalID and SessionName go with RoleARN. The name is "larder" if empty.
	ExternalID, SessionName string
}

// defaultSessionName is what CloudTrail shows of sessions that nobody named.
const defaultSessionName = "larder"

// awsSession is an identity in use by the endpoints of one kind in one region.
// Nothing is read or asked before the first use. It is safe for concurrent use.
type awsSession struct {
	identity        Identity
	region          string // of the service that is asked in the end
	fips, dualStack bool
	client          aws.HTTPClient
	log             *slog.Logger

	mu  sync.Mutex // guards cfg; not held while it is made
	cfg *aws.Config
}

// config returns what the SDK's clients are made of. Its region is s.region.
func (s *awsSession) config(ctx context.Context) (*aws.Config, error) {
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
	if s.cfg == nil { // another one of those who found none may have been faster
		s.cfg = &made
	}
	return s.cfg, nil
}

// load runs the SDK's chain. STS and SSO are asked in the region that the
// environment or the profile names, as with any other AWS tool: that is where a
// network without a way out has its endpoint. The registry's own region stands in
// where none is named.
func (s *awsSession) load(ctx context.Context) (aws.Config, error) {
	options := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithDefaultRegion(s.region),
		awsconfig.WithHTTPClient(s.client),
		awsconfig.WithLogger(logging.LoggerFunc(s.logf)), // the SDK's own goes to stderr
		awsconfig.WithRetryer(shortPauses),
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
	if s.identity.RoleARN != "" {
		cfg.Credentials = aws.NewCredentialsCache(s.role(cfg))
	}
	cfg.Region = s.region
	return cfg, nil
}

// role assumes the identity's role with the credentials of cfg.
func (s *awsSession) role(cfg aws.Config) aws.CredentialsProvider {
	client := sts.NewFromConfig(cfg, func(o *sts.Options) {
		if o.BaseEndpoint != nil {
			o.EndpointOptions.UseFIPSEndpoint, o.EndpointOptions.UseDualStackEndpoint = noKind()
		}
		if partitionOf(o.Region) != partitionOf(s.region) {
			o.Region = s.region // where the environment's region knows nothing of the role
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
// environment: that says all, and the SDK takes it for a mistake to ask for a kind
// of endpoint as well.
func noKind() (aws.FIPSEndpointState, aws.DualStackEndpointState) {
	return aws.FIPSEndpointStateDisabled, aws.DualStackEndpointStateDisabled
}

// logf passes on what the SDK has to say, which is about its own workings.
func (s *awsSession) logf(kind logging.Classification, format string, args ...any) {
	s.log.Debug("AWS SDK: "+fmt.Sprintf(format, args...), "kind", string(kind))
}

// forget has the chain run anew at the next use, if AWS itself refused what was
// asked: files may have been replaced since, and what the clock says of
// credentials may be wrong.
func (s *awsSession) forget(err error) {
	var refusal smithy.APIError
	if !errors.As(err, &refusal) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg = nil
}

// shortPauses has the SDK's own retries over within a second, where it would
// take up to a minute: clients wait, and the source asks again later anyway.
func shortPauses() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = 200 * time.Millisecond })
}
