package daemon

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
)

func TestRateLimitOfAnUpstreamIsAMetric(t *testing.T) {
	remaining := map[string]string{"/v2/library/busybox/manifests/latest": "76", "/v2/a/manifests/1": "9", "/v2/b/manifests/1": "8"}
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("RateLimit-Limit", "100;w=21600")
		w.Header().Set("RateLimit-Remaining", remaining[r.URL.Path]+";w=21600")
		_, _ = w.Write([]byte("{}"))
	}))
	t.Cleanup(registry.Close)
	log := slog.New(slog.DiscardHandler)
	tel, err := newTelemetry(t.Context(), config.Telemetry{}, "", nil, log)
	if err != nil {
		t.Fatal(err)
	}
	client := upstream.NewClient(upstream.Options{
		Log:   log,
		Meter: tel.meter,
		Lookup: func(host string) (upstream.Config, bool) {
			entry := host
			if strings.HasSuffix(host, ".example.com") {
				entry = "*.example.com"
			}
			return upstream.Config{Host: host, Name: entry, Endpoint: registry.URL}, true
		},
	})
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, image := range []struct{ host, repository, tag string }{
		{"docker.io", "library/busybox", "latest"}, {"one.example.com", "a", "1"}, {"two.example.com", "b", "1"},
	} {
		registry, err := client.Registry(image.host)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := registry.Manifest(t.Context(), image.repository, image.tag, false); err != nil {
			t.Fatal(err)
		}
	}
	page := httptest.NewRecorder()
	tel.page.ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	for _, want := range []string{
		`larder_upstream_pulls_limit{upstream="docker.io"} 100`,
		`larder_upstream_pulls_remaining{upstream="docker.io"} 76`,
		`larder_upstream_pulls_remaining{upstream="*.example.com"} 8`, // of all its hosts the fewest
	} {
		if !strings.Contains(page.Body.String(), want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(page.Body.String(), `"one.example.com"`) {
		t.Error("the metrics tell apart the hosts that a pattern matches, which may be any number")
	}
}
