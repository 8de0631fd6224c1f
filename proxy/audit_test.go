package proxy_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/audit"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// newAudit returns an audit and the lines of its file.
func newAudit(t *testing.T, s audit.Settings) (*audit.Log, func() []map[string]any) {
	t.Helper()
	l, err := audit.Open(s, noop.NewMeterProvider(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, func() (lines []map[string]any) {
		raw, err := os.ReadFile(s.File)
		if err != nil {
			t.Fatal(err)
		}
		for text := range strings.Lines(string(raw)) {
			var m map[string]any
			if err := json.Unmarshal([]byte(text), &m); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			lines = append(lines, m)
		}
		return lines
	}
}

func TestEachDecisionAboutAnImageIsOneLineOfTheAudit(t *testing.T) {
	log, lines := newAudit(t, audit.Settings{File: filepath.Join(t.TempDir(), "audit.json")})
	r := newRig(t, settings{audit: log, forbidden: "team/secret", cache: cache.Options{Tags: cache.Freshness{StaleIfError: time.Hour}}})
	image := r.addImage("v1", ecrtest.Random(1, 1000))
	root := image.Root.Digest.String()
	r.get(manifestPath(app, "v1"), "User-Agent", "containerd/v2.1.0 token=hunter2")
	r.head(manifestPath(app, root))
	r.get(blobPath(app, image.Blobs[0].Digest)) // no decision about an image
	r.get("/v2/" + app + "/tags/list")          // nor this
	r.get(manifestPath(app, "missing"))
	r.get(manifestPath("team/secret", "v1"))
	r.get(manifestPath(app, "v1") + "?ns=other.example.com")
	r.ecr.Stop()
	r.get(manifestPath(app, "v1"))
	r.get(manifestPath(app, "v9"))

	host := r.ecr.Host()
	want := []map[string]any{
		{"method": "GET", "upstream": host, "reference": "v1", "digest": root, "allowed": true, "why": "upstream", "agent": "containerd/v2.1.0"},
		{"method": "HEAD", "upstream": host, "reference": root, "digest": root, "allowed": true, "why": "cached"},
		{"method": "GET", "upstream": host, "reference": "missing", "allowed": false, "why": "not_found"},
		{"method": "GET", "upstream": host, "repository": "team/secret", "reference": "v1", "allowed": false, "why": "not_allowed"},
		{"method": "GET", "upstream": "other.example.com", "reference": "v1", "allowed": false, "why": "not_configured"},
		{"method": "GET", "upstream": host, "reference": "v1", "digest": root, "allowed": true, "why": "stale"},
		{"method": "GET", "upstream": host, "reference": "v9", "allowed": false, "why": "failed"},
	}
	got := lines()
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d: %v", len(got), len(want), got)
	}
	for i, m := range want {
		if m["repository"] == nil {
			m["repository"] = app
		}
		m["v"] = 1.
		for key, value := range m {
			if got[i][key] != value {
				t.Errorf("line %d: %s is %v, want %v", i, key, got[i][key], value)
			}
		}
		if got[i]["digest"] != nil && m["digest"] == nil || got[i]["time"] == "" || got[i]["client"] == "" {
			t.Errorf("line %d: %v", i, got[i])
		}
	}
}

func TestImageWhoseRequiredLineCannotBeWrittenIsRefused(t *testing.T) {
	for _, required := range []bool{false, true} {
		log, _ := newAudit(t, audit.Settings{File: filepath.Join(t.TempDir(), "\x00"), Required: required})
		r := newRig(t, settings{audit: log})
		r.addImage("v1", ecrtest.Random(1, 1000))
		for range 2 { // a miss and a hit
			got := r.get(manifestPath(app, "v1"))
			switch {
			case !required && got.StatusCode != http.StatusOK:
				t.Errorf("not required: status %d", got.StatusCode)
			case required && (got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "" ||
				got.Header.Get("Docker-Content-Digest") != "" || !strings.Contains(string(got.body), "audit.required")):
				t.Errorf("required: status %d, %v, %s", got.StatusCode, got.Header, got.body)
			}
		}
		if got := r.get(manifestPath(app, "missing")); got.StatusCode != http.StatusNotFound {
			t.Errorf("required %v: a missing image has status %d", required, got.StatusCode)
		}
	}
}
