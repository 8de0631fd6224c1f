package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

const rateExceeded = `{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}`

// patiently asks as a fill does: a few times, after the pauses that it is told.
func patiently(ask func() error) error {
	for range 8 {
		err := ask()
		var throttled interface{ RetryAfter() time.Duration }
		if !errors.As(err, &throttled) {
			return err
		}
		pass(min(throttled.RetryAfter(), 10*time.Second))
	}
	return errors.New("throttled to the end")
}

func TestPullsFinishWhileEverySecondRequestIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		var mu sync.Mutex
		var perSecond [120]int
		began := time.Now()
		r := startInBubble(t, func(w http.ResponseWriter, req *http.Request) {
			since := time.Since(began)
			mu.Lock()
			perSecond[since/time.Second]++
			mu.Unlock()
			if asked.Add(1)%2 == 0 && since < 30*time.Second {
				w.WriteHeader(http.StatusTooManyRequests)
				_, _ = io.WriteString(w, rateExceeded)
				return
			}
			content(w, req)
		})
		const clients = 5
		var pulls sync.WaitGroup
		for client := range clients {
			pulls.Go(func() {
				pull := func() error {
					_, _, err := r.Manifest(t.Context(), repo, fmt.Sprintf("v%d", client), false)
					return err
				}
				if err := patiently(pull); err != nil {
					t.Errorf("manifest of client %d: %v", client, err)
				}
				for layer := range 5 {
					pull := func() error {
						part, err := r.OpenBlob(t.Context(), repo, digest.FromString(fmt.Sprint(client, layer)), Range{Len: 100})
						if err == nil {
							err = part.Body.Close()
						}
						return err
					}
					if err := patiently(pull); err != nil {
						t.Errorf("layer %d of client %d: %v", layer, client, err)
					}
				}
			})
		}
		pulls.Wait()
		for second := 5; second < 30; second++ {
			if n := perSecond[second]; n > clients {
				t.Errorf("%d requests in second %d", n, second)
			}
		}
	})
}

func TestThrottledRequestIsSentAgainInItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for question, ask := range questions {
			var refused atomic.Int64
			r := startInBubble(t, func(w http.ResponseWriter, req *http.Request) {
				if refused.Add(1) <= 2 {
					w.WriteHeader(http.StatusTooManyRequests)
					return
				}
				content(w, req)
			})
			before := time.Now()
			if err := ask(t.Context(), r, someBlob); err != nil {
				t.Errorf("%s: %v", question, err)
			}
			if took := time.Since(before); took < time.Second/floor || took > 5*time.Second {
				t.Errorf("%s: answered after %v", question, took)
			}
		}
	})
}

func TestThrottledRequestFailsWithinHalfOfItsTimeout(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"for good": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
		"for a time": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "15")
			w.WriteHeader(http.StatusTooManyRequests)
		},
		"and closed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("RateLimit-Remaining", "0;w=21600")
			w.WriteHeader(http.StatusTooManyRequests)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := startInBubble(t, handler)
				for range 3 {
					before := time.Now()
					_, _, err := r.Manifest(t.Context(), repo, "v1", false)
					if took := time.Since(before); took > defaultTimeout/2 {
						t.Errorf("heard after %v", took)
					}
					var throttled interface{ Throttled() bool }
					if !errors.As(err, &throttled) || !throttled.Throttled() {
						t.Errorf("got %v", err)
					}
				}
			})
		})
	}
}

func TestSpareBodyIsNotTriedAgainWhileAnUpstreamThrottles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		r := startInBubble(t, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(http.StatusTooManyRequests)
		})
		for range 2 {
			before := time.Now()
			if _, err := r.OpenBlob(t.Context(), repo, someBlob, Range{Len: 1, Spare: true}); !reply.IsThrottled(err) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(before); took != 0 {
				t.Errorf("a spare connection waits %v", took)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times, want once", n)
		}
		wantAllSlots(t, r)
	})
}

func TestOneRefusalOfStorageSlowsNothingElseDown(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Random(1, 1000))
	server.Inject(ecrtest.Fault{
		On: ecrtest.Storage, Times: 1, Status: http.StatusServiceUnavailable,
		Body: "<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
	})
	if err := questions["blob"](t.Context(), server.Registry, dgst); err != nil {
		t.Fatal(err)
	}
	if got := server.Stats().Blobs[dgst].Requests; got != 2 {
		t.Errorf("storage was asked %d times, want once more after it asked to slow down", got)
	}
	if rate := siteOf(server.Registry).throttle.requests.Backlog().Rate; rate != 0 {
		t.Errorf("the registry is limited to %v requests a second", rate)
	}
	host := mustURL(t, server.StorageURL).Host
	storage := siteOf(server.Registry).throttle.storage(host)
	if got := storage.Backlog(); got != (pace.Backlog{}) {
		t.Errorf("storage is limited: %+v", got)
	}
}

// ECR has a quota for BatchGetImage and another for GetDownloadUrlForLayer.
func TestThrottledLayersOfECRDoNotSlowManifestsDown(t *testing.T) {
	c, _ := newTestClient(t,
		Config{Host: "123456789012.dkr.ecr.us-east-1.amazonaws.com"},
		Config{Host: "123456789012.dkr-ecr.us-east-1.on.aws"},
		Config{Host: "registry.test"},
	)
	limiters := func(host string) (manifests, layers *pace.Limiter) {
		th := siteOf(registryOf(t, c, host)).throttle
		anonymous := func() bool { return false }
		return th.limiter(request{method: http.MethodGet, path: "manifests/v1"}, anonymous),
			th.limiter(request{method: http.MethodGet, path: "blobs/" + someBlob.String()}, anonymous)
	}
	manifests, layers := limiters("123456789012.dkr.ecr.us-east-1.amazonaws.com")
	if manifests == layers {
		t.Error("manifests and layers of ECR share a limit")
	}
	if _, others := limiters("123456789012.dkr-ecr.us-east-1.on.aws"); others != layers {
		t.Error("layers have a limit for each name of the registry")
	}
	if manifests, layers := limiters("registry.test"); manifests != layers {
		t.Error("a registry that counts requests has a limit for layers of its own")
	}
}

func TestNamesOfOneRegistryShareALimit(t *testing.T) {
	c, _ := newTestClient(t,
		Config{Host: "123456789012.dkr.ecr.us-east-1.amazonaws.com"},
		Config{Host: "123456789012.dkr-ecr.us-east-1.on.aws"},
		Config{Host: "123456789012.dkr.ecr.us-west-2.amazonaws.com"},
		Config{Host: "210987654321.dkr.ecr.us-east-1.amazonaws.com"},
	)
	limit := func(host string) *pace.Limiter { return siteOf(registryOf(t, c, host)).throttle.requests }
	if limit("123456789012.dkr.ecr.us-east-1.amazonaws.com") != limit("123456789012.dkr-ecr.us-east-1.on.aws") {
		t.Error("two names of one registry have a limit each")
	}
	all := map[*pace.Limiter]bool{
		limit("123456789012.dkr.ecr.us-east-1.amazonaws.com"): true,
		limit("123456789012.dkr.ecr.us-west-2.amazonaws.com"): true,
		limit("210987654321.dkr.ecr.us-east-1.amazonaws.com"): true,
	}
	if len(all) != 3 {
		t.Errorf("three registries have %d limits", len(all))
	}
}

func TestPullsFromECRPublicKeepItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var pulls []time.Time
		var heads int
		r := startInBubbleAs(t, Config{Host: "public.ecr.aws"}, func(w http.ResponseWriter, req *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !strings.Contains(req.URL.Path, "/manifests/"):
			case req.Method == http.MethodHead:
				heads++
				w.Header().Set("Docker-Content-Digest", someBlob.String())
			default:
				pulls = append(pulls, time.Now())
			}
			content(w, req)
		})
		var clients sync.WaitGroup
		var told atomic.Int64
		for range 20 {
			clients.Go(func() {
				if err := questions["manifest"](t.Context(), r, ""); reply.IsThrottled(err) {
					told.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		before := time.Now()
		for _, question := range []string{"head manifest", "blob"} {
			if err := questions[question](t.Context(), r, someBlob); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(before); took != 0 || heads != 1 {
			t.Errorf("requests that are no pulls took %v; %d heads", took, heads)
		}
		clients.Wait()
		for i := range len(pulls) - 1 {
			if gap := pulls[i+1].Sub(pulls[i]); gap < time.Second/publicPullsAnonymous {
				t.Errorf("a pull came %v after the one before", gap)
			}
		}
		if len(pulls) != 10 || told.Load() != 10 {
			t.Errorf("%d pulls and %d refusals, want 10 of each", len(pulls), told.Load())
		}
	})
}

// floor is the lowest rate that refusals lead to, in requests per second.
const floor = 5

// quota refuses what exceeds a number of requests per second, as a bucket of
// tokens.
type quota struct {
	perSecond float64
	tokens    float64
	at        time.Time
}

func (q *quota) refuses() bool {
	now := time.Now()
	q.tokens = min(q.tokens+q.perSecond*now.Sub(q.at).Seconds(), q.perSecond)
	q.at = now
	if q.tokens < 1 {
		return true
	}
	q.tokens--
	return false
}

// pulledPublic has the peculiarities of ECR Public: it answers 400 to an expired
// bearer token and 401 to a HEAD of a blob, and allows one pull a second.
type pulledPublic struct {
	mu     sync.Mutex // guards what follows
	quota  quota
	token  int // the number of the good one
	issued int
	throttled,
	pulls int
}

func (p *pulledPublic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.URL.Path == "/token/" {
		p.issued++
		_, _ = fmt.Fprintf(w, `{"token":"token-%d"}`, p.token)
		return
	}
	isPull := strings.Contains(r.URL.Path, "/manifests/") && r.Method == http.MethodGet
	switch got := r.Header.Get("Authorization"); {
	case got == "", r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/blobs/"):
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://registry.test/token/",service="public.ecr.aws",scope="aws"`)
		w.WriteHeader(http.StatusUnauthorized)
	case got != fmt.Sprintf("Bearer token-%d", p.token):
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"Your Authorization Token is invalid."}]}`)
	case isPull && p.quota.refuses():
		p.throttled++
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, rateExceeded)
	default:
		if isPull {
			p.pulls++
		}
		content(w, r)
	}
}

// expire ends the life of the tokens so far.
func (p *pulledPublic) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token++
}

func TestPullsFromECRPublicWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		public := &pulledPublic{quota: quota{perSecond: 1}}
		r := startInBubbleAs(t, Config{Host: "public.ecr.aws"}, public.ServeHTTP)
		const pulls = 30
		began := time.Now()
		for range pulls {
			for question, ask := range questions {
				if question == "tags" {
					continue
				}
				if err := ask(t.Context(), r, someBlob); err != nil {
					t.Fatalf("%s: %v", question, err)
				}
			}
			public.expire()
		}
		if public.throttled > 0 {
			t.Errorf("%d of %d pulls exceeded the limit", public.throttled, public.pulls)
		}
		if took := time.Since(began); took > 4*pulls*time.Second {
			t.Errorf("%d pulls took %v", public.pulls, took)
		}
		if public.issued != pulls {
			t.Errorf("%d tokens were asked for, want one for each that ran out, %d", public.issued, pulls)
		}
	})
}

// startUsedUp runs a registry in a bubble that serves blobs, and refuses and counts
// requests for manifests.
func startUsedUp(t *testing.T, host string, refuse func(http.ResponseWriter)) (*Registry, *atomic.Int64) {
	t.Helper()
	pulls := new(atomic.Int64)
	r := startInBubbleAs(t, Config{Host: host}, func(w http.ResponseWriter, req *http.Request) {
		if !strings.Contains(req.URL.Path, "/manifests/") {
			content(w, req)
			return
		}
		pulls.Add(1)
		refuse(w)
	})
	return r, pulls
}

func TestExhaustedQuotaDoesNotHoldUpLayers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, pulls := startUsedUp(t, name.DockerHub, func(w http.ResponseWriter) {
			w.Header().Set("RateLimit-Remaining", "0;w=21600")
			w.WriteHeader(http.StatusTooManyRequests)
		})
		for range 3 {
			for _, question := range []string{"manifest", "head manifest"} {
				before := time.Now()
				if err := questions[question](t.Context(), r, ""); !reply.IsThrottled(err) {
					t.Errorf("%s: %v", question, err)
				}
				if took := time.Since(before); took > time.Second {
					t.Errorf("%s: heard after %v", question, took)
				}
			}
			if err := questions["blob"](t.Context(), r, someBlob); err != nil {
				t.Error(err)
			}
		}
		if n := pulls.Load(); n != 1 {
			t.Errorf("asked %d times with a quota that is used up for hours", n)
		}
	})
}

// ECR Public tells by its message that the month's quota is used up.
func TestDataLimitOfECRPublicIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, pulls := startUsedUp(t, "public.ecr.aws", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"Data limit exceeded"}]}`)
		})
		for range 3 {
			before := time.Now()
			err := questions["manifest"](t.Context(), r, "")
			if !reply.IsThrottled(err) || !strings.Contains(err.Error(), "Data limit exceeded") {
				t.Errorf("got %v", err)
			}
			if took := time.Since(before); took != 0 {
				t.Errorf("heard after %v", took)
			}
			if err := questions["blob"](t.Context(), r, someBlob); err != nil {
				t.Errorf("a blob: %v", err)
			}
		}
		if n := pulls.Load(); n != 1 {
			t.Errorf("asked %d times with a quota that is used up for days", n)
		}
	})
}

func TestLimitOfECRPublicGoesByTheCredentials(t *testing.T) {
	upstreamtest.SetAWS(t, "")
	for perSecond, cfg := range map[int]Config{
		publicPullsAnonymous: {Host: "public.ecr.aws"},
		publicPulls:          {Host: "public.ecr.aws", Username: "AWS", PasswordFile: passwordFile(t, "hunter2")},
	} {
		synctest.Test(t, func(t *testing.T) {
			public := &pulledPublic{quota: quota{perSecond: 100}}
			r := startInBubbleAs(t, cfg, public.ServeHTTP)
			pull := func() {
				t.Helper()
				if err := questions["manifest"](t.Context(), r, ""); err != nil {
					t.Fatal(err)
				}
			}
			pull()
			pull()
			began := time.Now()
			pull()
			if took, gap := time.Since(began), time.Second/time.Duration(perSecond); took < gap || took > 2*gap {
				t.Errorf("as %q: a pull came %v after the one before, want %v", cfg.Username, took, gap)
			}
		})
	}
}

func TestColdStartAtECRPublicHasTheLimitOfItsCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		public := &pulledPublic{quota: quota{perSecond: publicPulls}}
		r := startInBubbleAs(t, Config{Host: "public.ecr.aws", Username: "AWS", PasswordFile: passwordFile(t, "hunter2")}, public.ServeHTTP)
		began := time.Now()
		var clients sync.WaitGroup
		for range 40 {
			clients.Go(func() {
				if err := questions["manifest"](t.Context(), r, ""); err != nil {
					t.Error(err)
				}
			})
		}
		clients.Wait()
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("40 pulls took %v, at %d a second", took, publicPulls)
		}
		if public.throttled > 0 {
			t.Errorf("%d pulls exceeded the limit", public.throttled)
		}
	})
}
