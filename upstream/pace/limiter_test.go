package pace_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// These are the limiter's own numbers, in the units of their use.
const (
	floor      = 5           // requests per second that refusals do not go below
	growth     = 20          // seconds until a rate is about that which was refused
	calm       = time.Minute // without a refusal, after which the limit is lifted
	longest    = time.Minute // for which one answer has a target left alone
	maxWaiting = 1024        // requests for one target
	longStreak = 60          // refusals in a row at the floor that lower it

	// Refusals that set a limit: so many, and this part of the requests.
	leastRefusals, leastShare = 8, 0.7
)

// tooMany is an answer that lowers a limit.
func tooMany(wait time.Duration) pace.Refusal {
	err := &reply.Error{Op: "GET /v2/", Host: "registry.test", Status: http.StatusTooManyRequests, Wait: wait}
	return pace.Refusal{Err: err, Wait: wait, Throttled: true}
}

func rateOf(l *pace.Limiter) float64 { return l.Backlog().Rate }

// throttled returns a limiter whose rate is this, and whose next turn is a gap
// away.
func throttled(t *testing.T, rate int) *pace.Limiter {
	t.Helper()
	l := pace.NewLimiter("registry.test", 0)
	for range 2 * rate {
		mustWait(t, l, pace.Manifests)
	}
	sent := time.Now()
	pass(time.Millisecond)
	for range max(leastRefusals, int(math.Ceil(leastShare*float64(2*rate)))) {
		l.Refused(sent, tooMany(0))
	}
	if got := int(rateOf(l)); got != rate {
		t.Fatalf("%d requests in a second, and refusals, make a rate of %d, want %d", 2*rate, got, rate)
	}
	return l
}

func mustWait(t *testing.T, l *pace.Limiter, p pace.Priority) time.Time {
	t.Helper()
	sent, err := l.Wait(t.Context(), p, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

// wantThrottled wants the error of a request that was not sent.
func wantThrottled(t *testing.T, err error, wait time.Duration) {
	t.Helper()
	var refused interface {
		Throttled() bool
		RetryAfter() time.Duration
	}
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, want that it was not sent", err)
	}
	if !refused.Throttled() || refused.RetryAfter() != wait {
		t.Errorf("throttled %t, for %v, want %v", refused.Throttled(), refused.RetryAfter(), wait)
	}
}

func TestRequestsAreSentAtOnceUntilOneIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pace.NewLimiter("registry.test", 0)
		began := time.Now()
		for range 10_000 {
			mustWait(t, l, pace.Blobs)
			l.Succeeded()
			if _, err := l.Try(); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("waited %v", took)
		}
	})
}

func TestRefusalHalvesTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttled(t, 50)
		began := time.Now()
		for range 50 {
			mustWait(t, l, pace.Manifests)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("50 requests at 50 a second took %v", took)
		}
	})
}

func TestRefusalsOfRequestsSentBeforeCountOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pace.NewLimiter("registry.test", 0)
		var sent []time.Time
		for range 100 {
			sent = append(sent, mustWait(t, l, pace.Manifests))
		}
		pass(50 * time.Millisecond)
		for _, at := range sent {
			l.Refused(at, tooMany(0))
		}
		if rateOf(l) != 50 {
			t.Errorf("100 refusals at once lower the rate from 100 to %v, want 50", rateOf(l))
		}
	})
}

func TestRateComesBackAndTheLimitIsLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttled(t, 50)
		for began := time.Now(); time.Since(began) < growth/2*time.Second; {
			mustWait(t, l, pace.Manifests)
			l.Succeeded()
		}
		if rateOf(l) < 85 || rateOf(l) > 95 {
			t.Errorf("after %d s without a refusal the rate is %v, want about 90 of the 100 of before", growth/2, rateOf(l))
		}
		pass(calm)
		mustWait(t, l, pace.Manifests)
		if rateOf(l) != 0 {
			t.Errorf("after a minute more there is a limit of %v", rateOf(l))
		}
	})
}

func TestKnownLimitHoldsFromTheFirstRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pace.NewLimiter("public.ecr.aws", 1)
		var last time.Time
		for range 100 {
			sent := mustWait(t, l, pace.Manifests)
			if gap := sent.Sub(last); gap < time.Second {
				t.Fatalf("a request came %v after the one before", gap)
			}
			last = sent
			l.Succeeded()
		}
	})
}

func TestRetryAfterDelaysEveryRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pace.NewLimiter("registry.test", 0)
		l.Refused(mustWait(t, l, pace.Manifests), tooMany(7*time.Second))
		began := time.Now()
		if _, err := l.Try(); err == nil {
			t.Error("Try sends during the pause")
		}
		_, err := l.Wait(t.Context(), pace.Manifests, began.Add(6*time.Second))
		wantThrottled(t, err, 7*time.Second)
		if took := time.Since(began); took != 0 {
			t.Errorf("a request without the time for it fails after %v", took)
		}
		mustWait(t, l, pace.Blobs)
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("waited %v, want 7s", took)
		}
	})
}

func TestRetryAfterCountsForAMinuteAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pace.NewLimiter("registry.test", 0)
		l.Refused(mustWait(t, l, pace.Manifests), tooMany(time.Hour))
		began := time.Now()
		mustWait(t, l, pace.Manifests)
		if took := time.Since(began); took != longest {
			t.Errorf("waited %v, want %v", took, longest)
		}
	})
}

func TestErrorSaysWhyTheRequestWasNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused, known := throttled(t, 5), pace.NewLimiter("public.ecr.aws", 1)
		mustWait(t, refused, pace.Manifests)
		mustWait(t, known, pace.Manifests)
		for l, want := range map[*pace.Limiter]string{
			refused: "registry.test is not asked for another 200ms, as it gets too many requests: GET /v2/ from registry.test: 429 Too Many Requests",
			known:   "public.ecr.aws is not asked for another 1.053s, as it allows no more than 1 pulls a second",
		} {
			if _, err := l.Try(); err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		}
	})
}

// Others use up a quota that several share: a request that waits for its turn gets through
// sooner than a client that is sent away and comes back.
func TestRefusalsWithoutARetryAfterSendNoRequestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttled(t, floor)
		for range 3 * longStreak {
			l.Refused(mustWait(t, l, pace.Manifests), tooMany(0))
		}
		if until := l.Backlog().PausedUntil; !until.IsZero() {
			t.Errorf("the target is left alone until %v", until)
		}
	})
}

func TestFloorSinksInLongStreaksUntilARequestSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttled(t, floor)
		var rates []float64
		for range 3*longStreak + 1 {
			l.Refused(mustWait(t, l, pace.Manifests), tooMany(0))
			if got := rateOf(l); len(rates) == 0 || rates[len(rates)-1] != got {
				rates = append(rates, got)
			}
		}
		if want := []float64{4.75, 2.375, 1.9, 0.95}; !slices.Equal(rates, want) { // 5, 2 and 1, less the margin
			t.Errorf("the rates are %v, want %v", rates, want)
		}
		sent := mustWait(t, l, pace.Manifests)
		l.Succeeded()
		pass(time.Millisecond)
		l.Refused(sent, tooMany(0))
		if got := rateOf(l); got != 4.75 {
			t.Errorf("after a success the floor is %v, want 4.75", got)
		}
	})
}

func TestFewRefusalsHoldBackOnlyTheRefusedRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct{ sent, refused int }{
			"a few requests, most of them refused":  {5, leastRefusals - 1},
			"many requests, a few of them refused":  {100, 69},
			"one request after the other, and none": {0, 1},
		} {
			l := pace.NewLimiter("storage.test", 0)
			for range c.sent {
				mustWait(t, l, pace.Blobs)
			}
			for range c.refused {
				if pause := l.Refused(time.Now(), tooMany(0)); pause <= 0 || pause > time.Second/floor*3/2 {
					t.Errorf("%s: the refused request waits %v", name, pause)
				}
			}
			if got := l.Backlog(); got != (pace.Backlog{}) {
				t.Errorf("%s: %+v", name, got)
			}
		}
	})
}

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

func TestRateFallsBelowAQuotaWithin5SecondsAndUsesIt(t *testing.T) {
	for _, perSecond := range []int{5, 20, 200} {
		t.Run(fmt.Sprint(perSecond), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const roundTrip = 20 * time.Millisecond
				l := pace.NewLimiter("registry.test", 0)
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var mu sync.Mutex
				q := quota{perSecond: float64(perSecond)}
				sentIn, refusedIn := make([]int, 62), make([]int, 62)
				var clients sync.WaitGroup
				for range 300 {
					clients.Go(func() {
						for ctx.Err() == nil {
							sent, err := l.Wait(ctx, pace.Manifests, began.Add(time.Hour))
							if err != nil {
								return
							}
							mu.Lock()
							second := int(time.Since(began) / time.Second)
							sentIn[second]++
							refused := q.refuses()
							if refused {
								refusedIn[second]++
							}
							mu.Unlock()
							pass(roundTrip)
							if refused {
								l.Refused(sent, tooMany(0))
							} else {
								l.Succeeded()
							}
						}
					})
				}
				clients.Wait()
				if sentIn[0] <= perSecond {
					t.Errorf("%d requests in the first second are no test of %d", sentIn[0], perSecond)
				}
				// A rate that has fallen grows again until the next refusal, so only the lowest second shows that it fell.
				if slices.Min(sentIn[1:6]) > perSecond {
					t.Errorf("more than the allowed %d requests in each of the first seconds: %v", perSecond, sentIn[:6])
				}
				total, refused := 0, 0
				for s := 5; s < 60; s++ {
					total += sentIn[s]
					refused += refusedIn[s]
				}
				if total < 55*perSecond/2 {
					t.Errorf("%d requests in 55 s use less than half of %d a second", total, perSecond)
				}
				if total > 55*perSecond*11/10 {
					t.Errorf("%d requests in 55 s are over a tenth more than %d a second", total, perSecond)
				}
				if 10*refused > total {
					t.Errorf("%d of %d requests are refused", refused, total)
				}
				if over := slices.Max(sentIn[5:60]); over > perSecond*5/4+1 {
					t.Errorf("%d requests in one second, of %d that are allowed", over, perSecond)
				}
			})
		})
	}
}

func TestKnownLimitIsNoBacklog(t *testing.T) {
	if got := pace.NewLimiter("public.ecr.aws", 10).Backlog(); got != (pace.Backlog{}) {
		t.Errorf("got %+v", got)
	}
}
