package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream/reply"
)

// startInBubble runs a registry in a bubble. Its timeout is the default one.
func startInBubble(t *testing.T, h http.HandlerFunc) *Registry {
	t.Helper()
	return startInBubbleAs(t, Config{Host: "registry.test"}, h)
}

// startInBubbleAs is startInBubble for a registry of this name.
func startInBubbleAs(t *testing.T, cfg Config, h http.HandlerFunc) *Registry {
	t.Helper()
	cfg.Endpoint = "http://registry.test"
	c, _ := newTestClientOn(t, serveInBubble(t, h), cfg)
	return registryOf(t, c, cfg.Host)
}

// stall sends a part of the body, and then nothing until the client leaves. The
// answer to a HEAD is complete.
func stall(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		return
	}
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// silences are the ways in which an upstream stops to answer.
var silences = map[string]http.HandlerFunc{
	"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	"an error's body": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		stall(w, r)
	},
	"no answer where it leads": func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silence" {
			<-r.Context().Done()
			return
		}
		http.Redirect(w, r, "/silence", http.StatusTemporaryRedirect)
	},
	"no token": func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			stall(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://registry.test/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	},
}

func TestSilentUpstreamFailsAfterTheTimeout(t *testing.T) {
	for silence, handler := range silences {
		for question, ask := range questions {
			if question == "has blob" && silence == "no answer where it leads" {
				continue // a redirect is its answer
			}
			t.Run(silence+"/"+question, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := startInBubble(t, handler)
					before := time.Now()
					err := ask(t.Context(), r, someBlob)
					if err == nil {
						t.Error("silence is an answer")
					}
					if silence == "no answer" && !errors.Is(err, reply.ErrTimeout) {
						t.Errorf("got %v, want %v", err, reply.ErrTimeout)
					}
					if took := time.Since(before); took < defaultTimeout || took > defaultTimeout+time.Second {
						t.Errorf("ended after %v, want %v", took, defaultTimeout)
					}
					wantAllSlots(t, r)
				})
			})
		}
	}
}

func TestStalledManifestFailsAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startInBubble(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, manifestBody[:10])
			stall(w, r)
		})
		before := time.Now()
		_, _, err := r.Manifest(t.Context(), repo, "v1", false)
		if !errors.Is(err, reply.ErrTimeout) {
			t.Errorf("got %v, want %v", err, reply.ErrTimeout)
		}
		if took := time.Since(before); took != defaultTimeout {
			t.Errorf("ended after %v, want %v", took, defaultTimeout)
		}
	})
}

func TestBodyOfABlobHasNoTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startInBubble(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "con")
			_ = http.NewResponseController(w).Flush()
			pass(time.Hour)
			_, _ = io.WriteString(w, "tent")
		})
		if got, err := blobBody(t, r); err != nil || got != "content" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestRequestEndsWithItsContext(t *testing.T) {
	for question, ask := range questions {
		t.Run(question, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := startInBubble(t, silences["no answer"])
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- ask(ctx, r, someBlob) }()
				synctest.Wait()
				cancel()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("got %v, want %v", err, context.Canceled)
				}
				wantAllSlots(t, r)
			})
		})
	}
}
