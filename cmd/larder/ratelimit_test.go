package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream"
)

func TestRateLimitOfAnUpstreamIsAMetric(t *testing.T) {
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("RateLimit-Limit", "100;w=21600")
		w.Header().Set("RateLimit-Remaining", "76;w=21600")
		_, _ = w.Write([]byte("{}"))
	}))
	t.Cleanup(registry.Close)
	client := upstream.NewClient(upstream.Options{
		Log: slog.New(slog.DiscardHandler),
		Lookup: func(host string) (upstream.Config, bool) {
			return upstream.Config{Host: host, Endpoint: registry.URL}, true
		},
	})
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	meter, metrics, err := newMeter()
	if err != nil {
		t.Fatal(err)
	}
	if err := meterRateLimits(meter, client); err != nil {
		t.Fatal(err)
	}
	hub, err := client.Registry("docker.io")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := hub.Manifest(t.Context(), "library/busybox", "latest", false); err != nil {
		t.Fatal(err)
	}
	page := httptest.NewRecorder()
	metrics.ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	for _, want := range []string{
		`larder_upstream_pulls_limit{upstream="docker.io"} 100`,
		`larder_upstream_pulls_remaining{upstream="docker.io"} 76`,
	} {
		if !strings.Contains(page.Body.String(), want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
