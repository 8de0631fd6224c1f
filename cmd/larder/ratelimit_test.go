package main

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
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("RateLimit-Limit", "100;w=21600")
		w.Header().Set("RateLimit-Remaining", "76;w=21600")
		_, _ = w.Write([]byte("{}"))
	}))
	t.Cleanup(registry.Close)
	log := slog.New(slog.DiscardHandler)
	tel, err := newTelemetry(t.Context(), config.Telemetry{}, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	client := upstream.NewClient(upstream.Options{
		Log:   log,
		Meter: tel.meter,
		Lookup: func(host string) (upstream.Config, bool) {
			return upstream.Config{Host: host, Endpoint: registry.URL}, true
		},
	})
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	hub, err := client.Registry("docker.io")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := hub.Manifest(t.Context(), "library/busybox", "latest", false); err != nil {
		t.Fatal(err)
	}
	page := httptest.NewRecorder()
	tel.page.ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	for _, want := range []string{
		`larder_upstream_pulls_limit{upstream="docker.io"} 100`,
		`larder_upstream_pulls_remaining{upstream="docker.io"} 76`,
	} {
		if !strings.Contains(page.Body.String(), want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
