package share

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// metadata is an instance metadata service of version 2. asked counts the requests to it.
func metadata(t *testing.T, zone string) (asked *atomic.Int32) {
	asked = new(atomic.Int32)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			fmt.Fprint(w, "token")
		case r.Header.Get("X-Aws-Ec2-Metadata-Token") != "token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/latest/meta-data/placement/availability-zone" && zone != "":
			fmt.Fprintln(w, zone)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.URL)
	return asked
}

func TestZoneIsThatOfTheInstance(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	t.Run("told", func(t *testing.T) {
		metadata(t, "us-east-1a")
		if zone := zoneOfInstance(t.Context(), log); zone != "us-east-1a" {
			t.Errorf("the zone is %q", zone)
		}
	})
	t.Run("not told", func(t *testing.T) {
		metadata(t, "")
		if zone := zoneOfInstance(t.Context(), log); zone != "" {
			t.Errorf("the zone is %q", zone)
		}
	})
	t.Run("disabled", func(t *testing.T) {
		asked := metadata(t, "us-east-1a")
		t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
		if zone := zoneOfInstance(t.Context(), log); zone != "" || asked.Load() != 0 {
			t.Errorf("the zone is %q after %d requests", zone, asked.Load())
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		t.Setenv("AWS_EC2_METADATA_DISABLED", "")
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
		if zone := zoneOfInstance(t.Context(), log); zone != "" {
			t.Errorf("the zone is %q", zone)
		}
	})
	t.Run("silent", func(t *testing.T) {
		hang, end := context.WithCancel(t.Context())
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang.Done() }))
		defer server.Close()
		defer end()
		t.Setenv("AWS_EC2_METADATA_DISABLED", "")
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.URL)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if zone := zoneOfInstance(ctx, log); zone != "" || ctx.Err() != nil {
			t.Errorf("the zone is %q, and the test's own bound %v", zone, ctx.Err())
		}
	})
}
