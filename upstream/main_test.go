// The tests are inside the package: they replace the network below a client, which
// has no setting for it, and some look at a slot, a limiter or a breaker.
package upstream

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets time go by in a bubble.
func pass(d time.Duration) { <-time.After(d) }

const (
	repo         = "team/app"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	manifestBody = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`
)

func setenv(t *testing.T, variables map[string]string) {
	t.Helper()
	for name, value := range variables {
		t.Setenv(name, value)
	}
}

// newTestClient returns a client with these upstreams only.
func newTestClient(t *testing.T, configs ...Config) (*Client, *upstreamtest.Log) {
	t.Helper()
	return newTestClientOn(t, network{transports: guard.NewTransports(guard.Options{})}, configs...)
}

// newTestClientOn is newTestClient with these connections.
func newTestClientOn(t *testing.T, via network, configs ...Config) (*Client, *upstreamtest.Log) {
	t.Helper()
	log := new(upstreamtest.Log)
	c := newClient(Options{
		Log: log.Logger(),
		Lookup: func(host string) (Config, bool) {
			for _, cfg := range configs {
				if cfg.Host == host {
					return cfg, true
				}
			}
			return Config{}, false
		},
	}, via)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, log
}

func registryOf(t *testing.T, c *Client, host string) *Registry {
	t.Helper()
	r, err := c.Registry(host)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fake is a running fake ECR and a registry that talks to it.
type fake struct {
	*ecrtest.Running
	*Registry
	log *upstreamtest.Log
}

// startECR runs a fake ECR that has the manifest manifestBody under the tag v1.
func startECR(t *testing.T, opts ecrtest.Options) *fake {
	t.Helper()
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	server, err := ecrtest.Start(opts)
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
	c, log := newTestClient(t, ecrConfig(server))
	return &fake{server, registryOf(t, c, server.Host()), log}
}

func ecrConfig(server *ecrtest.Running) Config {
	return Config{
		Host:     server.Host(),
		Endpoint: server.Endpoint,
		ECR:      ECRConfig{APIEndpoint: server.Endpoint},
	}
}

// startPlain runs a registry that is not ECR's, at a loopback address.
func startPlain(t *testing.T, cfg Config, h http.HandlerFunc) (*Registry, *upstreamtest.Log) {
	t.Helper()
	server := serve(t, h)
	cfg.Host, cfg.Endpoint = "registry.test", server.URL
	c, log := newTestClient(t, cfg)
	return registryOf(t, c, cfg.Host), log
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server
}

// passwordFile returns a file with a password in it.
func passwordFile(t *testing.T, password string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "password")
	writeFile(t, name, password)
	return name
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// readAll reads a body to its end and closes it.
func readAll(t *testing.T, body io.ReadCloser) string {
	t.Helper()
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustURL(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// siteOf returns the registry itself, without its replicas.
func siteOf(r *Registry) *site { return r.members.primary().site }

func statusOf(r *Registry) Status { return r.members.primary().status() }

// tokenOf returns the token that requests to an ECR registry have.
func tokenOf(t *testing.T, r *Registry) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://registry.test", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	token, err := siteOf(r).configured.Authorize(t.Context(), req, repo)
	if err != nil {
		t.Fatal(err)
	}
	return token
}
