package ecr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/patience"
	"github.com/larder-registry/larder/upstream/telemetry"
)

// patientClient sends calls of AWS's APIs, and sends one again whose answer does not
// come: Larder's calls only read, or issue tokens. It is safe for concurrent use.
type patientClient struct {
	by      aws.HTTPClient
	places  *patience.Places
	timeout time.Duration
	counter *telemetry.Upstream
}

const (
	// maxCall bounds the body of a call, in bytes. Those of Larder are below 4 KiB.
	maxCall = 1 << 20
	// maxAnswer bounds the part of an answer that is awaited, in bytes. A page of
	// DescribeImages has some 500 KiB.
	maxAnswer = 4 << 20
)

var errLongCall = errors.New("the call is too long")

// Do is for aws.HTTPClient.
func (c *patientClient) Do(req *http.Request) (*http.Response, error) {
	sent, err := readCall(req)
	if err != nil {
		return nil, err
	}
	return c.places.Of(req.URL.Host).Ask(req.Context(), patience.Question{
		Timeout:  c.timeout,
		Repeated: c.counter.Repeated,
		Send: func(ctx context.Context, _ bool) (*http.Response, error) { // newHTTPClient keeps no connections
			out := req.Clone(ctx)
			if sent != nil {
				out.Body = io.NopCloser(bytes.NewReader(sent))
			}
			resp, err := c.by.Do(out)
			if err == nil {
				err = guard.CheckFinal(resp)
			}
			if err != nil {
				return nil, err
			}
			if err := patience.Await(resp, maxAnswer); err != nil {
				return nil, fmt.Errorf("read the answer: %w", err)
			}
			return resp, nil
		},
	})
}

// readCall returns the body of a call, or nil if it has none.
func readCall(req *http.Request) ([]byte, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return nil, nil
	}
	defer req.Body.Close()
	sent, err := io.ReadAll(io.LimitReader(req.Body, maxCall+1))
	if err == nil && len(sent) > maxCall {
		err = errLongCall
	}
	return sent, err
}
