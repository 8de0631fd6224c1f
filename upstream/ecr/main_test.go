// The tests are inside the package: those of tokens replace AWS's API below their
// source, and those of regions look at what is shared.
package ecr

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/telemetry"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets time go by in a bubble.
func pass(d time.Duration) { <-time.After(d) }

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server
}

const (
	repo         = "team/app"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	manifestBody = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`
)

// fake is a running fake ECR, and its registry.
type fake struct {
	*ecrtest.Running
	*Registry
}

// startECR runs a fake ECR that has the manifest manifestBody under the tag v1.
func startECR(t *testing.T) *fake {
	t.Helper()
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	server, err := ecrtest.Start(ecrtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := server.AddManifest(repo, "v1", manifestType, []byte(manifestBody)); err != nil {
		t.Fatal(err)
	}
	cfg := configOf(t, server.Host())
	cfg.APIEndpoint = server.Endpoint
	return &fake{server, newTestClient(t, nil).Registry(cfg, pace.NewLimiter(cfg.Name, 0))}
}

// configOf returns the configuration of a registry by its host.
func configOf(t *testing.T, host string) Config {
	t.Helper()
	parsed, ok := name.ParseECR(host)
	if !ok {
		t.Fatalf("%s is no host of ECR", host)
	}
	return Config{Name: host, Host: parsed, Timeout: 20 * time.Second}
}

// newTestClient returns a client whose requests are sent by h, or for nil by the
// usual one.
func newTestClient(t *testing.T, h aws.HTTPClient) *Client {
	t.Helper()
	counters, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(Options{HTTP: h, Log: new(upstreamtest.Log).Logger(), Now: time.Now, Telemetry: counters})
	t.Cleanup(c.Close)
	return c
}
