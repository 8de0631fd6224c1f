package upstream

import (
	"net/http"
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream/pace"
)

func TestRateLimitIsKept(t *testing.T) {
	limit := http.Header{}
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, req *http.Request) {
		for name := range limit {
			w.Header().Set(name, limit.Get(name))
		}
		content(w, req)
	})
	ask := func() {
		t.Helper()
		if _, err := blobBody(t, r); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	if got, ok := r.RateLimit(); ok {
		t.Errorf("an upstream that says nothing has %+v", got)
	}
	limit.Set("ratelimit-limit", "100;w=21600")
	limit.Set("ratelimit-remaining", "76;w=21600")
	limit.Set("docker-ratelimit-source", "192.0.2.7")
	ask()
	want := pace.RateLimit{Limit: 100, Remaining: 76, Window: 6 * time.Hour, Source: "192.0.2.7"}
	got, ok := r.RateLimit()
	if got.At.IsZero() {
		t.Error("its time is missing")
	}
	if got.At = (time.Time{}); !ok || got != want {
		t.Errorf("got %+v, %t; want %+v", got, ok, want)
	}
	limit.Set("ratelimit-remaining", "many")
	ask()
	if got, _ := r.RateLimit(); got.Remaining != 76 {
		t.Errorf("after an answer that cannot be read: %+v", got)
	}
}

func TestRateLimitOfStorageIsIgnored(t *testing.T) {
	storage := serve(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("RateLimit-Limit", "1")
		w.Header().Set("RateLimit-Remaining", "0")
		content(w, req)
	})
	r, _ := startPlain(t, Config{}, redirect(storage.URL))
	if _, err := blobBody(t, r); err != nil {
		t.Fatal(err)
	}
	if got, ok := r.RateLimit(); ok {
		t.Errorf("got %+v", got)
	}
}
