package probe

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// Metadata is how EC2's instance metadata service answers on this machine.
type Metadata string

// Forms of Metadata.
const (
	// MetadataAnswers: the SDK can get the credentials of the instance's role.
	MetadataAnswers Metadata = "answers"
	// MetadataDisabled: AWS_EC2_METADATA_DISABLED keeps the SDK from asking.
	MetadataDisabled Metadata = "disabled"
	// MetadataAbsent: nothing is at its address, as outside EC2 or behind a network
	// policy for pods.
	MetadataAbsent Metadata = "absent"
	// MetadataTooFar: it accepts connections and does not answer, as for a container
	// on an instance with hop limit 1, whose answers are dropped on the way (EC2 user
	// guide, "Configure the Instance Metadata Service options").
	MetadataTooFar Metadata = "too far"
)

// FindMetadata asks the metadata service for a session token of version 2, and
// forgets it. The end of ctx is a result: the service did not answer in time.
func FindMetadata(ctx context.Context) Metadata {
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
	c := Connect(ctx, put, at.JoinPath("latest", "api", "token"), "")
	switch {
	case c.Err == nil && c.Status == http.StatusOK:
		return MetadataAnswers
	case c.Err != nil && c.Stage == StageAnswer && ctx.Err() != nil:
		return MetadataTooFar
	}
	return MetadataAbsent
}
