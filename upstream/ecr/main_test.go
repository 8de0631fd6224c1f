// The tests are inside the package: those of tokens replace AWS's API below their
// source, and those of regions look at what is shared.
package ecr

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets time go by in a bubble.
func pass(d time.Duration) { <-time.After(d) }

// awsEnvironment sets the credentials that the SDK finds, and hides the machine's.
func awsEnvironment(t *testing.T, accessKey string) {
	t.Helper()
	none := filepath.Join(t.TempDir(), "none")
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID":           accessKey,
		"AWS_SECRET_ACCESS_KEY":       "aws-secret",
		"AWS_SESSION_TOKEN":           "",
		"AWS_PROFILE":                 "",
		"AWS_REGION":                  "",
		"AWS_CA_BUNDLE":               "",
		"AWS_ENDPOINT_URL":            "",
		"AWS_CONFIG_FILE":             none,
		"AWS_SHARED_CREDENTIALS_FILE": none,
		"AWS_EC2_METADATA_DISABLED":   "true",
	} {
		t.Setenv(name, value)
	}
}

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex // guards what follows
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// wantLines checks that a text was logged n times, once on a line.
func (b *logBuffer) wantLines(t *testing.T, text string, n int) {
	t.Helper()
	if got := strings.Count(b.String(), text); got != n {
		t.Errorf("logged %q %d times, want %d:\n%s", text, got, n, b)
	}
}

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
	awsEnvironment(t, "AKIDLARDERTEST")
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
	c := NewClient(Options{HTTP: h, Log: new(logBuffer).logger(), Now: time.Now, Telemetry: counters})
	t.Cleanup(c.Close)
	return c
}

// wantNoCredentials wants an error about credentials, which must not read as an
// answer that there is no such image.
func wantNoCredentials(t *testing.T, err error, text string) {
	t.Helper()
	var credentials *auth.Error
	if !errors.As(err, &credentials) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want an error about credentials with %q", err, text)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v reads as an answer of the registry", err)
	}
}
