package upstream

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Service is one of AWS's APIs that an ECR upstream needs.
type Service struct {
	// Name is "ecr-api" or "sts".
	Name string
	// URL is where it is asked.
	URL string
}

// Services returns the APIs that are asked for tokens, at the endpoints that the
// configuration, the environment and the region give; none where the registry
// is not ECR by its authentication.
func (r *Registry) Services(ctx context.Context) ([]Service, error) {
	auth, ok := r.auth.(*ecrAuth)
	if !ok {
		return nil, nil
	}
	api, err := auth.api.connect(ctx)
	if err != nil {
		return nil, err
	}
	o := api.Options()
	at, err := o.EndpointResolverV2.ResolveEndpoint(ctx, ecr.EndpointParameters{
		Region:       aws.String(o.Region),
		UseFIPS:      aws.Bool(o.EndpointOptions.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled),
		UseDualStack: aws.Bool(o.EndpointOptions.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled),
		Endpoint:     o.BaseEndpoint,
	})
	if err != nil {
		return nil, err
	}
	caller, err := auth.sts(ctx)
	if err != nil {
		return nil, err
	}
	s := caller.Options()
	who, err := s.EndpointResolverV2.ResolveEndpoint(ctx, sts.EndpointParameters{
		Region:       aws.String(s.Region),
		UseFIPS:      aws.Bool(s.EndpointOptions.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled),
		UseDualStack: aws.Bool(s.EndpointOptions.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled),
		Endpoint:     s.BaseEndpoint,
	})
	if err != nil {
		return nil, err
	}
	return []Service{{"ecr-api", at.URI.String()}, {"sts", who.URI.String()}}, nil
}

// ConnectService connects to one of the registry's services.
func (r *Registry) ConnectService(ctx context.Context, s Service) Connection {
	auth, ok := r.auth.(*ecrAuth)
	u, err := url.Parse(s.URL)
	if err != nil || !ok {
		return Connection{Stage: StageDNS, Err: err}
	}
	api, err := auth.api.connect(ctx)
	if err != nil {
		return Connection{Stage: StageDNS, Err: err}
	}
	return connect(ctx, api.Options().HTTPClient.Do, u.JoinPath("/"), proxyOf(http.ProxyFromEnvironment, u))
}

// Caller is as whom AWS is asked.
type Caller struct {
	// ARN is of the user, or of the session of a role; "" where STS did not say.
	ARN string
	// Source is what gave the credentials, as the AWS SDK names it.
	Source string
	// Expires is when they end; zero where they do not.
	Expires time.Time
}

// Caller finds AWS credentials for the registry, and asks STS whose they are.
// Where it has the credentials but not STS's answer, it returns their source with
// the error.
func (r *Registry) Caller(ctx context.Context) (Caller, error) {
	auth, ok := r.auth.(*ecrAuth)
	if !ok {
		return Caller{}, nil
	}
	client, err := auth.sts(ctx)
	if err != nil {
		return Caller{}, err
	}
	found, err := client.Options().Credentials.Retrieve(ctx)
	if err != nil {
		return Caller{}, newCredentialsError("find AWS credentials", err)
	}
	c := Caller{Source: found.Source}
	if found.CanExpire {
		c.Expires = found.Expires
	}
	out, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return c, newAPIError(ctx, "ask STS whose the credentials are", err)
	}
	c.ARN = aws.ToString(out.Arn)
	return c, nil
}

// sts returns a client of STS with the credentials of the registry.
func (a *ecrAuth) sts(ctx context.Context) (*sts.Client, error) {
	cfg, err := a.api.session.config(ctx)
	if err != nil {
		return nil, err
	}
	return sts.NewFromConfig(*cfg), nil
}
