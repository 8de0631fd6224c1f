package probe_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server
}

func TestMetadataIsFoundByItsAnswer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	answers := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut || r.URL.Path != "/latest/api/token" || r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") == "" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
	})
	forbids := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	dead := serve(t, http.NotFound)
	dead.Close()
	for endpoint, want := range map[string]probe.Metadata{
		answers.URL:                        probe.MetadataAnswers,
		forbids.URL:                        probe.MetadataAbsent,
		dead.URL:                           probe.MetadataAbsent,
		"http://" + silent.Addr().String(): probe.MetadataTooFar,
	} {
		t.Setenv("AWS_EC2_METADATA_DISABLED", "")
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if got := probe.FindMetadata(ctx); got != want {
			t.Errorf("%s: %s, want %s", endpoint, got, want)
		}
		cancel()
		t.Setenv("AWS_EC2_METADATA_DISABLED", "TRUE")
		if got := probe.FindMetadata(t.Context()); got != probe.MetadataDisabled {
			t.Errorf("%s: %s, though it is disabled", endpoint, got)
		}
	}
}
