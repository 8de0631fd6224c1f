package upstream

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// Metadata is how the instance metadata service of EC2 answers here.
type Metadata string

// Forms of Metadata.
const (
	// MetadataAnswers: credentials of an instance's role can be had.
	MetadataAnswers Metadata = "answers"
	// MetadataDisabled: AWS_EC2_METADATA_DISABLED keeps the SDK from asking.
	MetadataDisabled Metadata = "disabled"
	// MetadataAbsent: nothing is at its address, as outside EC2, or where a network
	// policy keeps pods away from it.
	MetadataAbsent Metadata = "absent"
	// MetadataTooFar: it can be connected to and does not answer, as for a
	// container where the hop limit of the instance is 1: its answers end on the
	// way (EC2 user guide, "Configure the Instance Metadata Service options").
	MetadataTooFar Metadata = "too far"
)

// ProbeMetadata asks the metadata service for a session token of version 2, and
// forgets it. What it finds when ctx ends counts.
func ProbeMetadata(ctx context.Context) Metadata {
	if strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		return MetadataDisabled
	}
	at := &url.URL{Scheme: "http", Host: "169.254.169.254"}
	if v := os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"); v != "" {
		if u, err := url.Parse(v); err == nil && u.Host != "" {
			at = u
		}
	}
	transport := &http.Transport{DisableKeepAlives: true} // and never by a proxy
	put := func(req *http.Request) (*http.Response, error) {
		req.Method = http.MethodPut
		req.Header.Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
		return transport.RoundTrip(req)
	}
	c := connect(ctx, put, at.JoinPath("latest", "api", "token"), "")
	switch {
	case c.Err == nil && c.Status == http.StatusOK:
		return MetadataAnswers
	case c.Err != nil && c.Stage == StageAnswer && ctx.Err() != nil:
		return MetadataTooFar
	}
	return MetadataAbsent
}
