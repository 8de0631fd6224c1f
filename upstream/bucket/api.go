package bucket

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/time/rate"
)

// Place is where a bucket is.
type Place struct {
	Bucket string
	// Prefix is the folder of Larder's objects. Empty means that they are at the top.
	Prefix string
	// Region is the bucket's.
	Region string
	// Endpoint is the URL of another S3 than AWS's. Nil means AWS's.
	Endpoint *url.URL
	// PathStyle puts the bucket's name into the path, rather than before the host.
	PathStyle bool
}

// URL is where requests go to, for the choice of what they may lead to.
func (p Place) URL() *url.URL {
	if p.Endpoint != nil {
		return p.Endpoint
	}
	return &url.URL{Scheme: "https", Host: "s3." + p.Region + ".amazonaws.com"}
}

// String returns the place in the form that AWS's tools have.
func (p Place) String() string { return "s3://" + p.Bucket + "/" + string(newNames(p.Prefix)) }

// burst is how many bytes may be sent at once, whatever the rate.
const burst = 256 << 10

// connect returns a client for a bucket. cfg has the credentials. Bodies are sent at bytesPerSecond; 0 means no bound.
func connect(cfg aws.Config, at Place, via http.RoundTripper, bytesPerSecond int64) *store {
	limit, slow := rate.Inf, int64(minRate)
	if bytesPerSecond > 0 {
		limit, slow = rate.Limit(bytesPerSecond), min(minRate, max(bytesPerSecond/(2*workers), 1))
	}
	client := &http.Client{
		Transport:     &rated{via, rate.NewLimiter(limit, burst)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	cfg.APIOptions = nil // which bound the search for credentials, and would end bodies
	return &store{bucket: at.Bucket, slow: slow, api: s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.HTTPClient = client
		o.Region = at.Region
		o.UsePathStyle = at.PathStyle
		o.Retryer = aws.NopRetryer{} // other sources are asked meanwhile; Run tries again
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		if at.Endpoint != nil {
			o.BaseEndpoint = aws.String(at.Endpoint.String())
		}
		if o.BaseEndpoint != nil { // the SDK refuses a kind of endpoint beside it
			o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateDisabled
			o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateDisabled
		}
	})}
}

// rated sends the bodies of all requests together at a rate.
type rated struct {
	http.RoundTripper
	limiter *rate.Limiter
}

// RoundTrip is for http.RoundTripper.
func (t *rated) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil && req.Body != http.NoBody && t.limiter.Limit() != rate.Inf {
		req = req.Clone(req.Context())
		req.Body = &ratedBody{req.Body, req.Context(), t.limiter}
	}
	return t.RoundTripper.RoundTrip(req)
}

type ratedBody struct {
	io.ReadCloser
	ctx     context.Context
	limiter *rate.Limiter
}

// Read is for io.Reader.
func (b *ratedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), burst)])
	if n > 0 {
		if waitErr := b.limiter.WaitN(b.ctx, n); waitErr != nil {
			return n, waitErr
		}
	}
	return n, err
}
