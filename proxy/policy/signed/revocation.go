package signed

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/crl"
	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"github.com/notaryproject/notation-core-go/revocation/result"
)

// revocations are notation's checks of the certificates of one signature. They note whether a service
// did not answer, which notation reports as a failed signature. They are for one goroutine.
type revocations struct{ signing, timestamping *revocationCheck }

// errNoRevocation is for a condition that has no way to ask.
var errNoRevocation = errors.New("no service for revocation can be asked from here")

// noTransport asks nothing.
type noTransport struct{}

func (noTransport) RoundTrip(*http.Request) (*http.Response, error) { return nil, errNoRevocation }

// newRevocations returns checks that ask with a client; nil asks nothing.
func newRevocations(client *http.Client) (*revocations, error) {
	if client == nil {
		client = &http.Client{Transport: noTransport{}}
	}
	fetcher, err := crl.NewHTTPFetcher(client)
	if err != nil {
		return nil, err
	}
	var checks revocations
	for purposed, to := range map[purpose.Purpose]**revocationCheck{
		purpose.CodeSigning: &checks.signing, purpose.Timestamping: &checks.timestamping,
	} {
		by, err := revocation.NewWithOptions(revocation.Options{OCSPHTTPClient: client, CRLFetcher: fetcher, CertChainPurpose: purposed})
		if err != nil {
			return nil, err
		}
		*to = &revocationCheck{by: by}
	}
	return &checks, nil
}

// asked reports whether the status of a certificate was asked for.
func (r *revocations) asked() bool { return r.signing.asked || r.timestamping.asked }

// revoked reports whether a certificate is revoked.
func (r *revocations) revoked() bool { return r.signing.revoked || r.timestamping.revoked }

// unknown is the error of a certificate whose status is not known, or nil.
func (r *revocations) unknown() error { return errors.Join(r.signing.unknown, r.timestamping.unknown) }

// revocationCheck is a revocation.Validator that notes the results of another.
type revocationCheck struct {
	by      revocation.Validator
	asked   bool
	revoked bool
	unknown error
}

// ValidateContext is for revocation.Validator.
func (c *revocationCheck) ValidateContext(ctx context.Context, opts revocation.ValidateContextOptions) ([]*result.CertRevocationResult, error) {
	results, err := c.by.ValidateContext(ctx, opts)
	for _, r := range results {
		switch r.Result {
		case result.ResultRevoked:
			c.asked, c.revoked = true, true
		case result.ResultOK:
			c.asked = true
		case result.ResultUnknown:
			c.asked = true
			c.unknown = errors.Join(c.unknown, unknownStatus(r))
		}
	}
	return results, err
}

// unknownStatus says why the status of a certificate is not known.
func unknownStatus(r *result.CertRevocationResult) error {
	var causes []error
	for _, s := range r.ServerResults {
		if s.Error != nil {
			causes = append(causes, fmt.Errorf("%s: %w", s.Server, s.Error))
		}
	}
	if len(causes) == 0 {
		return errors.New("the service does not know the certificate")
	}
	return errors.Join(causes...)
}
