package upstream

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// clockedECR returns a fake ECR and a registry with a clock that the test sets.
func clockedECR(t *testing.T) (*fake, *ecrtest.Clock) {
	t.Helper()
	clock := ecrtest.NewClock()
	server := startECR(t, ecrtest.Options{Now: clock.Now})
	log := new(upstreamtest.Log)
	c := NewClient(Options{Log: log.Logger(), Now: clock.Now, Lookup: func(string) (Config, bool) { return ecrConfig(server.Running), true }})
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return &fake{server.Running, registryOf(t, c, server.Host()), log}, clock
}

// Any answer that accepts the token counts: the next token that expires is renewed
// without a pause, on a clock that stands still.
func TestAcceptedTokenMakesTheNextRenewalImmediate(t *testing.T) {
	for name, test := range map[string]struct {
		repository string
		want       error
	}{
		"content":    {repo, nil},
		"not there":  {"none", fs.ErrNotExist},
		"not for us": {"secret/app", fs.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := clockedECR(t)
			if _, err := server.AddManifest("secret/app", "v1", manifestType, []byte(manifestBody)); err != nil {
				t.Fatal(err)
			}
			user := server.AWS().AddUser("arn:aws:iam::123456789012:user/guest", ecrtest.Policy{
				ecrtest.Allow("*"), ecrtest.Deny("*").On("arn:aws:ecr:us-east-1:123456789012:repository/secret/app"),
			})
			setenv(t, user.Environment())
			for i := range 5 {
				for _, head := range []bool{false, true} {
					if _, _, err := server.Manifest(t.Context(), test.repository, "v1", head); !errors.Is(err, test.want) {
						t.Fatalf("token %d: %v, want %v", i+1, err, test.want)
					}
				}
				if n := server.Stats().Tokens; n != i+1 {
					t.Fatalf("%d tokens were issued, want %d", n, i+1)
				}
				server.ExpireTokens()
			}
		})
	}
}

func TestRegistryThatRefusesEveryTokenCostsFewOfThem(t *testing.T) {
	for refusal, fault := range refusals {
		if fault.Status == 0 {
			continue
		}
		t.Run(refusal, func(t *testing.T) {
			server, clock := clockedECR(t)
			fault.On = registryOps
			remove := server.Inject(fault)
			for range 100 {
				if _, _, err := server.Manifest(t.Context(), repo, "v1", true); err == nil {
					t.Fatal("a manifest came out of a refusal")
				}
			}
			if n := server.Stats().Tokens; n != 2 {
				t.Errorf("%d tokens were issued for 100 requests, want the first and one more", n)
			}
			for range 600 {
				clock.Advance(time.Second)
				_, _, _ = server.Manifest(t.Context(), repo, "v1", true)
			}
			if n := server.Stats().Tokens; n < 10 || n > 20 {
				t.Errorf("%d tokens were issued in ten minutes, want one a minute in the end", n)
			}
			remove()
			if _, _, err := server.Manifest(t.Context(), repo, "v1", true); err != nil {
				t.Errorf("once it accepts: %v", err)
			}
		})
	}
}

// Some emulators of ECR have one token that never changes. Here it is refused.
func TestTokenThatNeverChangesIsNotAskedForAgainAndAgain(t *testing.T) {
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	var given atomic.Int64
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		given.Add(1)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_, _ = io.WriteString(w, `{"authorizationData":[{"authorizationToken":"QVdTOng="}]}`)
	})
	const host = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	clock := ecrtest.NewClock()
	c := NewClient(Options{Log: new(upstreamtest.Log).Logger(), Now: clock.Now, Lookup: func(string) (Config, bool) {
		return Config{Host: host, Endpoint: server.URL, ECR: ECRConfig{APIEndpoint: server.URL}}, true
	}})
	defer c.Close()
	r := registryOf(t, c, host)
	for range 20 {
		if err := pull(t, r, repo); !errors.Is(err, fs.ErrPermission) {
			t.Fatalf("got %v, want %v", err, fs.ErrPermission)
		}
	}
	if n := given.Load(); n != 2 {
		t.Errorf("it was asked for %d times in 20 requests, want the first and once more", n)
	}
}

// Two registries share their tokens, and one of them accepts none.
func TestRegistryThatRefusesEveryTokenDoesNotDisturbAnother(t *testing.T) {
	server, _ := clockedECR(t)
	broken := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	c, _ := newTestClient(t, ecrConfig(server.Running), Config{
		Host: "999999999999.dkr.ecr.us-east-1.amazonaws.com", Endpoint: broken.URL,
		ECR: ECRConfig{APIEndpoint: server.Endpoint},
	})
	good, bad := registryOf(t, c, server.Host()), registryOf(t, c, "999999999999.dkr.ecr.us-east-1.amazonaws.com")
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 20 {
				if _, _, err := good.Manifest(t.Context(), repo, "v1", false); err != nil {
					t.Error(err)
				}
				if _, _, err := bad.Manifest(t.Context(), repo, "v1", false); !errors.Is(err, fs.ErrPermission) {
					t.Errorf("got %v, want %v", err, fs.ErrPermission)
				}
			}
		})
	}
	clients.Wait()
	if n := server.Stats().Tokens; n > 4 {
		t.Errorf("%d tokens were issued, want few", n)
	}
}
