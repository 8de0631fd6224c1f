package upstream

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// startBubble runs a fake ECR in a bubble, and a registry that talks to it. Only
// the network is not real. The environment must be set before.
func startBubble(t *testing.T, opts ecrtest.Options) *fake {
	t.Helper()
	server := ecrtest.New(opts)
	if _, err := server.AddManifest(repo, "v1", manifestType, []byte(manifestBody)); err != nil {
		t.Fatal(err)
	}
	endpoint := "http://127.0.0.1"
	cfg := Config{Host: server.Host(), Endpoint: endpoint, ECR: ECRConfig{APIEndpoint: endpoint}}
	c, log := newTestClientOn(t, serveInBubble(t, server.Registry()), cfg)
	return &fake{&ecrtest.Running{Server: server, Endpoint: endpoint}, registryOf(t, c, server.Host()), log}
}

// serveInBubble returns a network on which h answers every request, to whatever
// address.
func serveInBubble(t *testing.T, h http.Handler) network {
	t.Helper()
	p := upstreamtest.NewPipes()
	via := testNetwork(t, p)
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(p) // it ends with the network
	}()
	t.Cleanup(func() {
		if err := server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		<-served
	})
	return via
}

// testNetwork returns a network whose connections are made by p.
func testNetwork(t *testing.T, p *upstreamtest.Pipes) network {
	t.Helper()
	trs := guard.NewTransports(guard.Options{})
	for _, endpoint := range []string{"http://127.0.0.1", "http://registry.test"} { // one for each class
		tr := trs.For(mustURL(t, endpoint))
		tr.Proxy, tr.DialContext = nil, p.Dial
	}
	return network{trs, &http.Client{Transport: &http.Transport{DialContext: p.Dial, DisableKeepAlives: true}}}
}

// Clients ask many times in the life of each token, for two minutes.
func TestClientsDoNotNoticeTokensOfTenSeconds(t *testing.T) {
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	synctest.Test(t, func(t *testing.T) {
		const life, lasts = 10 * time.Second, 2 * time.Minute
		server := startBubble(t, ecrtest.Options{TokenTTL: life})
		server.SetLatency(20 * time.Millisecond)
		begun := time.Now()
		var clients sync.WaitGroup
		for i := range 10 {
			clients.Go(func() {
				for time.Since(begun) < lasts {
					if _, _, err := server.Manifest(t.Context(), repo, "v1", i%2 == 0); err != nil {
						t.Errorf("after %v: %v", time.Since(begun), err)
						return
					}
					pass(70 * time.Millisecond)
				}
			})
		}
		clients.Wait()
		stats := server.Stats()
		if most := 2 * int(lasts/life); stats.Tokens-1 > most {
			t.Errorf("%d renewals in %v, want at most %d", stats.Tokens-1, lasts, most)
		}
		if requests := stats.Requests[ecrtest.Manifest]; requests < 10_000 {
			t.Errorf("%d requests: that is no load", requests)
		}
		server.log.WantLines(t, "level=WARN", 0)
	})
}

// The API fails from just before the renewal of the token until an hour after it
// expired.
func TestTokenAPIMayFailUntilTheOldTokenExpires(t *testing.T) {
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	synctest.Test(t, func(t *testing.T) {
		server := startBubble(t, ecrtest.Options{})
		ask := func() (time.Duration, error) {
			begun := time.Now()
			_, _, err := server.Manifest(t.Context(), repo, "v1", false)
			return time.Since(begun), err
		}
		if _, err := ask(); err != nil {
			t.Fatal(err)
		}
		recovers := server.Inject(ecrtest.Fault{On: ecrtest.API, Code: "ServerException", Message: "the lights are out", Status: http.StatusInternalServerError})
		begun := time.Now()
		for time.Since(begun) < 12*time.Hour-5*time.Minute {
			pass(4 * time.Minute)
			if _, err := ask(); err != nil {
				t.Fatalf("after %v: %v", time.Since(begun), err)
			}
		}
		server.log.WantLines(t, "no new ECR token", 1)
		pass(5 * time.Minute)
		for range 15 {
			took, err := ask()
			if err == nil || !strings.Contains(err.Error(), "ServerException: the lights are out") || errors.Is(err, fs.ErrPermission) {
				t.Fatalf("without a token: %v", err)
			}
			if took > time.Second {
				t.Errorf("failed after %v, want at once", took)
			}
			pass(4 * time.Minute)
		}
		server.log.WantLines(t, "level=WARN", 1)
		server.log.WantLines(t, "the ECR token has expired", 1)
		if n := server.Stats().Requests[ecrtest.API]; n > 3*8*60 {
			t.Errorf("asked the API %d times in vain, want at most one attempt a minute", n)
		}

		recovers()
		pass(time.Minute)
		if _, err := ask(); err != nil {
			t.Errorf("a pause after the API recovered: %v", err)
		}
		server.log.WantLines(t, "gives tokens again", 1)
	})
}

// The node's clock is hours off. Only signatures depend on it.
func TestClockSkewChangesNothing(t *testing.T) {
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	for name, skew := range map[string]time.Duration{"ahead": 11 * time.Hour, "behind": -30 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				theirs := func() time.Time { return time.Now().Add(-skew) }
				server := startBubble(t, ecrtest.Options{Now: theirs, MaxSkew: 5 * time.Minute})
				begun := time.Now()
				for time.Since(begun) < 36*time.Hour {
					if _, _, err := server.Manifest(t.Context(), repo, "v1", false); err != nil {
						t.Fatalf("after %v: %v", time.Since(begun), err)
					}
					pass(17 * time.Minute)
				}
				if n := server.Stats().Tokens; n < 5 || n > 7 {
					t.Errorf("%d tokens in three lives, want two a life", n)
				}
				server.log.WantLines(t, "level=WARN", 0)
			})
		})
	}
}
