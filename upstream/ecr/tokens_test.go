package ecr

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/telemetry"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

// tokenAPI replaces the API in tests of when it is asked. It gives token-1, token-2
// and so on.
type tokenAPI struct {
	life  time.Duration // of each token; 12 h if 0
	delay time.Duration // before each answer

	mu    sync.Mutex // guards what follows
	err   error      // instead of a token
	fixed string     // instead of a new token
	given int
	asked []time.Time
}

func (a *tokenAPI) ask(ctx context.Context) (token, error) {
	a.mu.Lock()
	a.asked = append(a.asked, time.Now())
	a.mu.Unlock()
	select {
	case <-time.After(a.delay):
	case <-ctx.Done():
		return token{}, ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return token{}, a.err
	}
	a.given++
	value := fmt.Sprintf("token-%d", a.given)
	if a.fixed != "" {
		value = a.fixed
	}
	life := a.life
	if life == 0 {
		life = 12 * time.Hour
	}
	return token{value: value, obtained: time.Now(), life: life}, nil
}

func (a *tokenAPI) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

// pauses returns the times between the calls, from the nth on.
func (a *tokenAPI) pauses(n int) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for i := n; i < len(a.asked); i++ {
		all = append(all, a.asked[i].Sub(a.asked[i-1]).String())
	}
	return all
}

func (a *tokenAPI) wantAsked(t *testing.T, n int) {
	t.Helper()
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.asked) != n {
		t.Fatalf("asked for a token %d times, want %d", len(a.asked), n)
	}
}

// startSource returns a source in a bubble, and the function that closes it.
func startSource(t *testing.T, api *tokenAPI) (source *tokens, stop func(), log *upstreamtest.Log) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log = new(upstreamtest.Log)
	counters, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	source = &tokens{
		ask: api.ask, counter: counters.Tokens("us-east-1"), now: time.Now, log: log.Logger(), ctx: ctx,
		renewer: new(sync.WaitGroup), pauses: pace.NewBackoff(firstPause, longestPause),
	}
	stop = func() {
		cancel()
		source.renewer.Wait()
	}
	t.Cleanup(stop)
	return source, stop, log
}

func wantToken(t *testing.T, source *tokens, want string) {
	t.Helper()
	if got, err := source.get(t.Context()); err != nil || got != want {
		t.Fatalf("get: %q, %v; want %s", got, err, want)
	}
}

func TestNoTokenIsAskedForBeforeItsFirstUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var api tokenAPI
		source, _, _ := startSource(t, &api)
		pass(48 * time.Hour)
		api.wantAsked(t, 0)
		wantToken(t, source, "token-1")
		api.wantAsked(t, 1)
	})
}

func TestConcurrentCallersShareOneAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := tokenAPI{delay: time.Second}
		source, _, _ := startSource(t, &api)
		var waiting sync.WaitGroup
		for range 16 {
			waiting.Go(func() {
				if got, err := source.get(t.Context()); err != nil || got != "token-1" {
					t.Errorf("get: %q, %v", got, err)
				}
			})
		}
		waiting.Wait()
		api.wantAsked(t, 1)
	})
}

func TestTokenIsRenewedAtHalfItsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var api tokenAPI
		source, _, _ := startSource(t, &api)
		wantToken(t, source, "token-1")
		pass(6*time.Hour - time.Second)
		api.wantAsked(t, 1)
		pass(time.Second + time.Duration(renewalSpread*float64(12*time.Hour)))
		api.wantAsked(t, 2)
		wantToken(t, source, "token-2")
	})
}

// Nodes that started together do not always ask together.
func TestRenewalsOfNodesAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nodes = 20
		var apis [nodes]tokenAPI
		for i := range apis {
			source, _, _ := startSource(t, &apis[i])
			wantToken(t, source, "token-1")
		}
		pass(8 * time.Hour)
		synctest.Wait()
		times := make(map[string]bool)
		for i := range apis {
			times[apis[i].pauses(1)[0]] = true
		}
		if len(times) < nodes/2 {
			t.Errorf("%d nodes renewed at %d times: %v", nodes, len(times), times)
		}
	})
}

func TestTokenOfAShortLifeIsNotRenewedInALoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := tokenAPI{life: time.Millisecond}
		source, _, _ := startSource(t, &api)
		wantToken(t, source, "token-1")
		pass(10*time.Second + time.Millisecond)
		api.wantAsked(t, 11)
	})
}

func TestOldTokenIsUsedUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var api tokenAPI
		source, _, log := startSource(t, &api)
		wantToken(t, source, "token-1")
		api.fail(errors.New("AccessDenied: no"))
		pass(12*time.Hour - time.Second)
		wantToken(t, source, "token-1")
		log.WantLines(t, "level=WARN", 1)

		pass(2 * time.Second)
		before := time.Now()
		_, err := source.get(t.Context())
		if err == nil || !strings.Contains(err.Error(), "AccessDenied: no") {
			t.Errorf("after expiry: %v, want the API's words", err)
		}
		if took := time.Since(before); took != 0 {
			t.Errorf("failed after %v, want at once", took)
		}
		pass(time.Hour)
		log.WantLines(t, "level=WARN", 1)
		log.WantLines(t, "level=ERROR", 1)
		log.WantLines(t, "the ECR token has expired", 1)

		api.fail(nil)
		pass(longestPause)
		wantToken(t, source, "token-2")
		log.WantLines(t, "gives tokens again", 1)
	})
}

func TestPausesBetweenFailedAttemptsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var api tokenAPI
		source, _, _ := startSource(t, &api)
		wantToken(t, source, "token-1")
		api.fail(errors.New("no"))
		pass(8 * time.Hour)
		synctest.Wait()
		got := api.pauses(2)[:9]
		want := []string{"1s", "2s", "4s", "8s", "16s", "32s", "1m0s", "1m0s", "1m0s"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pauses between failures (-want +got):\n%s", diff)
		}
	})
}

// Callers that can do without a token wait for the first attempt only.
func TestCallersWaitForOneAttemptOfAnOptionalToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := tokenAPI{delay: 10 * time.Second}
		api.fail(errors.New("no credentials"))
		source, _, log := startSource(t, &api)
		source.optional, source.pauses = true, pace.NewBackoff(firstOptionalPause, longestOptionalPause)
		waits := func() time.Duration {
			begun := time.Now()
			if token, err := source.get(t.Context()); err == nil {
				t.Errorf("got %q", token)
			}
			return time.Since(begun)
		}
		if d := waits(); d != api.delay {
			t.Errorf("waited %v for the first attempt, want %v", d, api.delay)
		}
		for range 3 * 60 {
			if d := waits(); d != 0 {
				t.Errorf("waited %v for another attempt", d)
			}
			pass(time.Minute)
		}
		api.wantAsked(t, 8) // after 0, 1, 3, 7, 15, 31, 63 and 123 minutes
		log.WantLines(t, "level=INFO", 1)
		log.WantLines(t, "level=WARN", 0)

		api.fail(nil)
		pass(longestOptionalPause)
		waits()
		pass(api.delay)
		synctest.Wait()
		wantToken(t, source, "token-1")
	})
}

func TestOptionalTokenIsRenewedLikeAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := tokenAPI{delay: time.Second}
		source, _, log := startSource(t, &api)
		source.optional, source.pauses = true, pace.NewBackoff(firstOptionalPause, longestOptionalPause)
		wantToken(t, source, "token-1")
		api.fail(errors.New("no"))
		pass(11 * time.Hour)
		wantToken(t, source, "token-1")
		api.mu.Lock()
		if n := len(api.asked); n < 3*60 || n > 6*60 {
			t.Errorf("asked %d times, want about once a minute after half of its life", n)
		}
		api.mu.Unlock()
		pass(2 * time.Hour)
		log.WantLines(t, "asked anonymously, as the token for it has expired", 1)
		log.WantLines(t, "level=WARN", 2)
		log.WantLines(t, "level=ERROR", 0)
	})
}

func TestFailureIsNotRepeatedDuringItsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var api tokenAPI
		api.fail(errors.New("no credentials"))
		source, _, _ := startSource(t, &api)
		for range 100 {
			if _, err := source.get(t.Context()); err == nil {
				t.Fatal("there is a token without credentials")
			}
		}
		api.wantAsked(t, 1)
		api.fail(nil)
		pass(firstPause)
		wantToken(t, source, "token-1")
		api.wantAsked(t, 2)
	})
}

func TestWaitEndsWithTheCallersContextOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := tokenAPI{delay: time.Minute}
		source, _, _ := startSource(t, &api)
		gone := errors.New("the client hung up")
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := source.get(ctx)
			ended <- err
		}()
		synctest.Wait()
		cancel(gone)
		if err := <-ended; !errors.Is(err, gone) {
			t.Errorf("the caller that left: %v, want %v", err, gone)
		}
		wantToken(t, source, "token-1")
		api.wantAsked(t, 1)
	})
}

func TestRefusedTokenIsReplacedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := tokenAPI{delay: time.Second}
		source, _, _ := startSource(t, &api)
		wantToken(t, source, "token-1")
		var waiting sync.WaitGroup
		for range 16 {
			waiting.Go(func() {
				if _, err := source.renew(t.Context(), "token-1"); err != nil {
					t.Error(err)
				}
			})
		}
		waiting.Wait()
		if _, err := source.renew(t.Context(), "token-1"); err != nil { // a latecomer
			t.Error(err)
		}
		api.wantAsked(t, 2)
		wantToken(t, source, "token-2")
	})
}

// Some emulators have one token that never changes.
func TestEqualTokenEndsTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := tokenAPI{fixed: "constant"}
		source, _, _ := startSource(t, &api)
		wantToken(t, source, "constant")
		if _, err := source.renew(t.Context(), "constant"); err != nil {
			t.Error(err)
		}
		api.wantAsked(t, 2)
		pass(8 * time.Hour)
		api.wantAsked(t, 3)
		wantToken(t, source, "constant")
	})
}

func TestRefusedTokenIsNotUsedWhenRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var api tokenAPI
		source, _, _ := startSource(t, &api)
		wantToken(t, source, "token-1")
		no := errors.New("no")
		api.fail(no)
		for range 2 {
			if _, err := source.renew(t.Context(), "token-1"); !errors.Is(err, no) {
				t.Errorf("renew: %v, want %v", err, no)
			}
		}
		api.wantAsked(t, 2)
	})
}

func TestCloseEndsRenewalsAndAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := tokenAPI{delay: time.Minute}
		source, stop, log := startSource(t, &api)
		wantToken(t, source, "token-1")
		ended := make(chan error, 1)
		go func() {
			_, err := source.renew(t.Context(), "token-1")
			ended <- err
		}()
		synctest.Wait()
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("an attempt under way: %v, want it cancelled", err)
		}
		pass(24 * time.Hour)
		api.wantAsked(t, 2)
		log.WantLines(t, "level=WARN", 0)
	})
}

// newTestAPI returns an API client for an endpoint.
func newTestAPI(t *testing.T, endpoint string) *api {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	cfg := Config{Host: name.ECR{Region: "us-east-1"}, APIEndpoint: endpoint, Timeout: 10 * time.Second}
	return newTestClient(t, &http.Client{Transport: transport}).region(cfg).api
}

// This machine's clock may be off by any amount. The life of a token is measured by
// the service's clock.
func TestTokenLifeIsByTheClockOfItsService(t *testing.T) {
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	server := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	for label, test := range map[string]struct {
		expires time.Duration // after the server's time
		date    string
		life    time.Duration
	}{
		"the documented one":        {12 * time.Hour, server.Format(http.TimeFormat), 12 * time.Hour},
		"a short one":               {10 * time.Second, server.Format(http.TimeFormat), 10 * time.Second},
		"expired on arrival":        {-time.Hour, server.Format(http.TimeFormat), defaultLife},
		"too long":                  {1000 * time.Hour, server.Format(http.TimeFormat), defaultLife},
		"years off, and no Date":    {12 * time.Hour, "", defaultLife},
		"years off, and a bad Date": {12 * time.Hour, "yesterday", defaultLife},
	} {
		t.Run(label, func(t *testing.T) {
			expires := server.Add(test.expires)
			api := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Date"] = nil
				if test.date != "" {
					w.Header().Set("Date", test.date)
				}
				w.Header().Set("Content-Type", "application/x-amz-json-1.1")
				fmt.Fprintf(w, `{"authorizationData":[{"authorizationToken":"QVdTOng=","expiresAt":%d}]}`, expires.Unix())
			})
			token, err := newTestAPI(t, api.URL).privateToken(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := (token.life - test.life).Abs(); diff > 10*time.Second {
				t.Errorf("lives for %v, want %v", token.life, test.life)
			}
		})
	}
}

func TestTokenFailureHasTheWordsOfAWS(t *testing.T) {
	server := startECR(t)
	upstreamtest.SetAWS(t, "AKIDSTRANGER")
	_, err := newTestAPI(t, server.Endpoint).privateToken(t.Context())
	upstreamtest.WantNoCredentials(t, err, "UnrecognizedClientException")
	if strings.Contains(err.Error(), "aws-secret") {
		t.Errorf("the error has the secret key: %v", err)
	}
}

func TestMissingCredentialsAreAnErrorOfTheCredentials(t *testing.T) {
	server := startECR(t)
	upstreamtest.SetAWS(t, "")
	_, err := newTestAPI(t, server.Endpoint).privateToken(t.Context())
	upstreamtest.WantNoCredentials(t, err, "us-east-1")
	// The file of the pod's token does not exist.
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/node")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", filepath.Join(t.TempDir(), "token"))
	_, err = newTestAPI(t, server.Endpoint).privateToken(t.Context())
	upstreamtest.WantNoCredentials(t, err, "no such file")
	if n := server.Stats().Requests[ecrtest.API]; n != 0 {
		t.Errorf("asked the API %d times without credentials", n)
	}
}

func TestAnswerWithoutATokenIsAnError(t *testing.T) {
	upstreamtest.SetAWS(t, "AKIDLARDERTEST")
	for name, body := range map[string]string{
		"no data":     `{"authorizationData":[]}`,
		"no token":    `{"authorizationData":[{"expiresAt":1}]}`,
		"empty token": `{"authorizationData":[{"authorizationToken":""}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/x-amz-json-1.1")
				_, _ = w.Write([]byte(body))
			})
			_, err := newTestAPI(t, server.URL).privateToken(t.Context())
			upstreamtest.WantNoCredentials(t, err, "no token")
		})
	}
}
