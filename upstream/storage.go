package upstream

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// credentialsTimeout bounds each request of a search for credentials: as long as the SDK allows a credential_process.
const credentialsTimeout = time.Minute

// Storage returns what a client of AWS's storage in a region needs: the SDK's configuration, with the credentials that
// its chain finds, and what makes the connections to an endpoint, which may lead where an upstream with this endpoint
// may. It asks nobody yet.
func (c *Client) Storage(ctx context.Context, region string, endpoint *url.URL) (aws.Config, http.RoundTripper, error) {
	cfg, err := c.ecr.AWSConfig(ctx, region, credentialsTimeout)
	if err != nil {
		return aws.Config{}, nil, fmt.Errorf("load the AWS configuration for storage: %w", err)
	}
	return cfg, c.transports.For(endpoint), nil
}
