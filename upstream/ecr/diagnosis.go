package ecr

import (
	"context"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/probe"
)

// Diagnosis has the steps of "larder doctor" for AWS's side of a registry.
type Diagnosis struct {
	api *api
}

// Service is an AWS API that a registry needs.
type Service struct {
	// Name is "ecr-api" or "sts".
	Name string
	// URL is its endpoint.
	URL string
}

// Services returns the APIs for tokens, at the endpoints of the configuration, the
// environment and the region.
func (d Diagnosis) Services(ctx context.Context) ([]Service, error) {
	client, err := d.api.connect(ctx)
	if err != nil {
		return nil, err
	}
	o := client.Options()
	at, err := o.EndpointResolverV2.ResolveEndpoint(ctx, ecr.EndpointParameters{
		Region:       aws.String(o.Region),
		UseFIPS:      aws.Bool(o.EndpointOptions.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled),
		UseDualStack: aws.Bool(o.EndpointOptions.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled),
		Endpoint:     o.BaseEndpoint,
	})
	if err != nil {
		return nil, err
	}
	identity, err := d.sts(ctx)
	if err != nil {
		return nil, err
	}
	s := identity.Options()
	stsAt, err := s.EndpointResolverV2.ResolveEndpoint(ctx, sts.EndpointParameters{
		Region:       aws.String(s.Region),
		UseFIPS:      aws.Bool(s.EndpointOptions.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled),
		UseDualStack: aws.Bool(s.EndpointOptions.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled),
		Endpoint:     s.BaseEndpoint,
	})
	if err != nil {
		return nil, err
	}
	return []Service{{"ecr-api", at.URI.String()}, {"sts", stsAt.URI.String()}}, nil
}

// Connect connects to a service.
func (d Diagnosis) Connect(ctx context.Context, s Service) probe.Connection {
	u, err := url.Parse(s.URL)
	if err != nil {
		return probe.Connection{Stage: probe.StageDNS, Err: err}
	}
	client, err := d.api.connect(ctx)
	if err != nil {
		return probe.Connection{Stage: probe.StageDNS, Err: err}
	}
	return probe.Connect(ctx, client.Options().HTTPClient.Do, u.JoinPath("/"), probe.ProxyOf(guard.Proxy, u))
}

// Caller is the AWS identity of requests.
type Caller struct {
	// ARN is that of the user or of the role's session; "" if STS did not tell.
	ARN string
	// Source is the source of the credentials, in the AWS SDK's words.
	Source string
	// Expires is when the credentials expire; zero if they do not.
	Expires time.Time
}

// Caller finds AWS credentials, and asks STS whose they are. If it has the
// credentials but no answer of STS, it returns their source with the error.
func (d Diagnosis) Caller(ctx context.Context) (Caller, error) {
	client, err := d.sts(ctx)
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

// sts returns a client of STS with the registry's credentials.
func (d Diagnosis) sts(ctx context.Context) (*sts.Client, error) {
	cfg, err := d.api.session.config(ctx)
	if err != nil {
		return nil, err
	}
	return sts.NewFromConfig(*cfg), nil
}
