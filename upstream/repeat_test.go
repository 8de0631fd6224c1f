package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/patience"
	"github.com/larder-registry/larder/upstream/reply"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// deafOnce does not answer the first request to each path that begins with a prefix,
// and answers the others.
type deafOnce struct {
	prefix string
	body   bool // it answers, and stops in the body
	serve  http.Handler

	mu   sync.Mutex // guards came
	came map[string]int
}

func (d *deafOnce) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	if d.came == nil {
		d.came = make(map[string]int)
	}
	d.came[r.URL.Path]++
	n := d.came[r.URL.Path]
	d.mu.Unlock()
	if n != 1 || !strings.HasPrefix(r.URL.Path, d.prefix) {
		d.serve.ServeHTTP(w, r)
		return
	}
	if d.body && r.Method != http.MethodHead {
		w.Header().Set("Content-Type", manifestType)
		_, _ = io.WriteString(w, "{")
		stall(w, r)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice that the client leaves
	<-r.Context().Done()
}

// plainRegistry has everything that the questions ask for, and wants a token.
var plainRegistry = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/token":
		_, _ = io.WriteString(w, `{"token":"t"}`)
	case r.Header.Get("Authorization") != "Bearer t" && !strings.HasPrefix(r.URL.Path, "/storage"):
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://registry.test/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	case strings.Contains(r.URL.Path, "/blobs/"):
		http.Redirect(w, r, "/storage", http.StatusTemporaryRedirect)
	case strings.Contains(r.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", manifestType)
		w.Header().Set("Docker-Content-Digest", someBlob.String())
		_, _ = io.WriteString(w, manifestBody)
	default:
		_, _ = io.WriteString(w, `{"tags":[]}`)
	}
})

func TestClientsWaitTwoSecondsForARequestThatGotLost(t *testing.T) {
	for name, test := range map[string]struct {
		deaf      *deafOnce
		questions []string
	}{
		"at the registry":     {&deafOnce{prefix: "/v2/"}, []string{"manifest", "head manifest", "tags", "blob", "has blob"}},
		"at the storage":      {&deafOnce{prefix: "/storage"}, []string{"blob"}},
		"at the token's":      {&deafOnce{prefix: "/token"}, []string{"manifest", "head manifest", "tags", "blob", "has blob"}},
		"a body stops":        {&deafOnce{prefix: "/v2/", body: true}, []string{"manifest", "tags"}},
		"a token's body does": {&deafOnce{prefix: "/token", body: true}, []string{"manifest", "blob"}},
	} {
		for _, question := range test.questions {
			t.Run(name+"/"+question, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					deaf := &deafOnce{prefix: test.deaf.prefix, body: test.deaf.body, serve: plainRegistry}
					r := startInBubble(t, deaf.ServeHTTP)
					began := time.Now()
					if err := questions[question](t.Context(), r, someBlob); err != nil {
						t.Error(err)
					}
					if took := time.Since(began); took != 2*time.Second {
						t.Errorf("answered after %v, want 2 s", took)
					}
					wantAllSlots(t, r)
				})
			})
		}
	}
}

func TestCallOfAWSThatGotLostIsPutAgain(t *testing.T) {
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	synctest.Test(t, func(t *testing.T) {
		server := ecrtest.New(ecrtest.Options{})
		if _, err := server.AddManifest(repo, "v1", manifestType, []byte(manifestBody)); err != nil {
			t.Fatal(err)
		}
		deaf := &deafOnce{prefix: "/", serve: server.Registry()}
		calls := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				deaf.ServeHTTP(w, r)
				return
			}
			server.Registry().ServeHTTP(w, r)
		})
		const endpoint = "http://127.0.0.1"
		cfg := Config{Host: server.Host(), Endpoint: endpoint, ECR: ECRConfig{APIEndpoint: endpoint}}
		c, _ := newTestClientOn(t, serveInBubble(t, calls), cfg)
		began := time.Now()
		if _, _, err := registryOf(t, c, cfg.Host).Manifest(t.Context(), repo, "v1", false); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("answered after %v, want 2 s", took)
		}
	})
}

func TestSilentUpstreamIsRememberedForAllQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startInBubble(t, silences["no answer"])
		if err := questions["tags"](t.Context(), r, someBlob); !errors.Is(err, reply.ErrTimeout) {
			t.Fatalf("got %v", err)
		}
		for question, ask := range questions {
			began := time.Now()
			err := ask(t.Context(), r, someBlob)
			var silent *patience.SilentError
			if took := time.Since(began); took != 0 || !errors.As(err, &silent) {
				t.Errorf("%s: %v after %v, want an error at once", question, err, took)
			}
		}
		wantAllSlots(t, r)
	})
}

func TestSilentStorageDoesNotSilenceTheRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startInBubble(t, func(w http.ResponseWriter, req *http.Request) {
			switch {
			case strings.HasPrefix(req.URL.Path, "/silence"):
				<-req.Context().Done()
			case strings.Contains(req.URL.Path, "/blobs/"):
				http.Redirect(w, req, "http://storage.test/silence", http.StatusTemporaryRedirect)
			default:
				w.Header().Set("Content-Type", manifestType)
				_, _ = io.WriteString(w, manifestBody)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_ = questions["blob"](ctx, r, someBlob)
		began := time.Now()
		var silent *patience.SilentError
		if err := questions["blob"](ctx, r, someBlob); !errors.As(err, &silent) || !strings.Contains(err.Error(), "storage.test") {
			t.Errorf("a blob: %v", err)
		}
		if err := questions["manifest"](ctx, r, someBlob); err != nil || time.Since(began) != 0 {
			t.Errorf("a manifest: %v after %v", err, time.Since(began))
		}
	})
}
