package upstream

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/offline"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// harbour is a client in a bubble whose upstreams can be offline. All of its connections
// are counted; names are looked up where connections are made.
type harbour struct {
	*Client
	offline atomic.Pointer[string] // the host that is
	dials   *atomic.Int64
}

func newHarbour(t *testing.T, h http.Handler, configs ...Config) *harbour {
	t.Helper()
	via, dials := serveInBubble(t, h), new(atomic.Int64)
	count := func(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
		return func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return dial(ctx, network, addr)
		}
	}
	for _, endpoint := range []string{"http://127.0.0.1", "http://registry.test"} { // one for each class
		tr := via.transports.For(mustURL(t, endpoint))
		tr.DialContext = count(tr.DialContext)
	}
	aws := via.aws.(*http.Client).Transport.(*http.Transport)
	aws.DialContext = count(aws.DialContext)
	harbour := &harbour{dials: dials}
	harbour.Client = newClient(Options{
		Log: new(upstreamtest.Log).Logger(),
		Lookup: func(host string) (Config, bool) {
			for _, cfg := range configs {
				if cfg.Host == host {
					return cfg, true
				}
			}
			return Config{}, false
		},
		Offline: func(host string) bool {
			is := harbour.offline.Load()
			return is != nil && *is == host
		},
	}, via)
	t.Cleanup(func() {
		if err := harbour.Close(); err != nil {
			t.Error(err)
		}
	})
	return harbour
}

// setOffline lets one host be offline, or none if it is "".
func (h *harbour) setOffline(host string) {
	h.offline.Store(&host)
	h.CutOffline()
}

// wantSilence checks that nothing was dialled since there were so many dials.
func (h *harbour) wantSilence(t *testing.T, dials int64) {
	t.Helper()
	if got := h.dials.Load(); got != dials {
		t.Errorf("%d connections were made", got-dials)
	}
}

// ecrHarbour is a harbour with a fake ECR.
func ecrHarbour(t *testing.T, opts ecrtest.Options, more ...Config) (*harbour, *ecrtest.Server) {
	t.Helper()
	server := ecrtest.New(opts)
	if _, err := server.AddManifest(repo, "v1", manifestType, []byte(manifestBody)); err != nil {
		t.Fatal(err)
	}
	const endpoint = "http://127.0.0.1"
	cfg := Config{Host: server.Host(), Endpoint: endpoint, ECR: ECRConfig{APIEndpoint: endpoint}}
	return newHarbour(t, server.Registry(), append(more, cfg)...), server
}

func TestOfflineUpstreamIsNotAsked(t *testing.T) {
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	asks := map[string]func(ctx context.Context, r *Registry) error{
		"touch": func(ctx context.Context, r *Registry) error {
			return r.Touch(ctx, repo, digest.FromString(manifestBody))
		},
		"lifecycle": func(ctx context.Context, r *Registry) error {
			_, err := r.ECR().Lifecycle(ctx, repo, time.Time{})
			return err
		},
		"exclusions": func(ctx context.Context, r *Registry) error {
			_, err := r.ECR().PullTimeExclusion(ctx)
			return err
		},
		"mutability": func(ctx context.Context, r *Registry) error {
			_, err := r.ECR().TagMutabilities(ctx, []string{repo})
			return err
		},
	}
	for question, ask := range questions {
		asks[question] = func(ctx context.Context, r *Registry) error { return ask(ctx, r, someBlob) }
	}
	for question, ask := range asks {
		t.Run(question, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, server := ecrHarbour(t, ecrtest.Options{})
				h.setOffline(server.Host())
				r := registryOf(t, h.Client, server.Host())
				for range 3 {
					began := time.Now()
					err := ask(t.Context(), r)
					if !offline.Is(err) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
						t.Errorf("the error is %v", err)
					}
					if took := time.Since(began); took != 0 {
						t.Errorf("it took %v", took)
					}
				}
				h.wantSilence(t, 0)
				h.setOffline("")
				if err := ask(t.Context(), r); offline.Is(err) {
					t.Errorf("online again: %v", err)
				}
				if h.dials.Load() == 0 {
					t.Error("an upstream that is online again is not asked: the test counts nothing")
				}
			})
		})
	}
}

func TestGoingOfflineEndsWhatIsBeingAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarbour(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/"+repo+"/manifests/v1" { // no answer
				<-r.Context().Done()
				return
			}
			w.Header().Set("Content-Range", "bytes 0-999/1000")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(make([]byte, 10))
			stall(w, r)
		}), Config{Host: "registry.test", Endpoint: "http://registry.test"})
		r := registryOf(t, h.Client, "registry.test")
		ended := make(chan error, 2)
		began := time.Now()
		go func() { ended <- questions["manifest"](t.Context(), r, "") }()
		content, err := r.OpenBlob(t.Context(), repo, someBlob, Range{Len: 1000})
		if err != nil {
			t.Fatal(err)
		}
		defer content.Body.Close()
		go func() {
			_, err := io.Copy(io.Discard, content.Body)
			ended <- err
		}()
		synctest.Wait()
		dials := h.dials.Load()
		h.setOffline("registry.test")
		for range 2 {
			if err := <-ended; err == nil {
				t.Error("a request was not broken off")
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		if err := questions["manifest"](t.Context(), r, ""); !offline.Is(err) {
			t.Errorf("the next request: %v", err)
		}
		h.wantSilence(t, dials)
		if st := h.Status(); len(st) != 1 || st[0].LastError != "" {
			t.Errorf("the status has an error of an upstream that is offline: %+v", st)
		}
	})
}

func TestGoingOfflineEndsTheRequestForAToken(t *testing.T) {
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	synctest.Test(t, func(t *testing.T) {
		h, server := ecrHarbour(t, ecrtest.Options{})
		release := server.Inject(ecrtest.Fault{On: ecrtest.API, Hang: true})
		defer release()
		r := registryOf(t, h.Client, server.Host())
		ended := make(chan error, 1)
		began := time.Now()
		go func() { ended <- questions["manifest"](t.Context(), r, "") }()
		synctest.Wait()
		dials := h.dials.Load()
		h.setOffline(server.Host())
		if err := <-ended; !offline.Is(err) || time.Since(began) != 0 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		pass(time.Hour)
		h.wantSilence(t, dials)
	})
}

func TestTokensAreRenewedForRegistriesThatAreOnline(t *testing.T) {
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	synctest.Test(t, func(t *testing.T) {
		sibling := Config{Host: "210987654321.dkr.ecr.us-east-1.amazonaws.com", Endpoint: "http://127.0.0.1", ECR: ECRConfig{APIEndpoint: "http://127.0.0.1"}}
		h, server := ecrHarbour(t, ecrtest.Options{}, sibling)
		r := registryOf(t, h.Client, server.Host())
		ask := questions["manifest"]
		if err := ask(t.Context(), r, ""); err != nil {
			t.Fatal(err)
		}
		h.setOffline(server.Host())
		dials := h.dials.Load()
		pass(72 * time.Hour)
		h.wantSilence(t, dials)
		if st := h.Status(); len(st) != 1 || st[0].TokenError != "" {
			t.Errorf("the status has an error of a token that nobody needs: %+v", st)
		}
		h.setOffline("")
		if err := ask(t.Context(), r, ""); err != nil {
			t.Errorf("online again, with an old token: %v", err)
		}

		registryOf(t, h.Client, sibling.Host) // it shares the token, and stays online
		for _, host := range []string{server.Host(), sibling.Host} {
			h.setOffline(host)
			before := server.Stats().Tokens
			pass(72 * time.Hour)
			if got := server.Stats().Tokens - before; got < 5 {
				t.Errorf("the token was renewed %d times in six of its lives while a registry needs it, and %s is offline", got, host)
			}
		}
	})
}

func TestOfflineReplicaIsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const replica = "replica.test"
		h := newHarbour(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host == replica {
				t.Errorf("the replica was asked for %s", r.URL)
			}
			select { // more than the registry would have if another one could stand in for it
			case <-time.After(15 * time.Second):
			case <-r.Context().Done():
			}
			w.WriteHeader(http.StatusNotFound)
		}),
			Config{Host: "registry.test", Endpoint: "http://registry.test", ECR: ECRConfig{Replicas: []string{replica}}},
			Config{Host: replica, Endpoint: "http://" + replica})
		h.setOffline(replica)
		r := registryOf(t, h.Client, "registry.test")
		if _, err := r.OpenBlob(t.Context(), repo, someBlob, Range{Len: 1}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the error is not the answer of the registry: %v", err)
		}
	})
}

func TestRedirectToAnOfflineUpstreamIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const other = "other.test"
		h := newHarbour(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host == other {
				t.Errorf("%s was asked for %s", other, r.URL)
			}
			http.Redirect(w, r, "http://"+other+r.URL.Path, http.StatusTemporaryRedirect)
		}), Config{Host: "registry.test", Endpoint: "http://registry.test"}, Config{Host: other})
		h.setOffline(other)
		r := registryOf(t, h.Client, "registry.test")
		for question, ask := range questions {
			if question == "has blob" {
				continue // a redirect is its answer
			}
			if err := ask(t.Context(), r, someBlob); !offline.Is(err) {
				t.Errorf("%s: %v", question, err)
			}
		}
	})
}
