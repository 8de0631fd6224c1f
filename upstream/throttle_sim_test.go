package upstream

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/singleflight"
)

// A rollout is 8 images that 4 clients each pull at once. A pull is a HEAD and a GET of the
// manifest, the config, and three layers. A client whose pull fails comes back after a pause,
// as the kubelet does.
const (
	rolloutImages  = 8
	rolloutClients = 4
	rolloutSteps   = 6
	rolloutEnd     = 10 * time.Minute
	firstPause     = 10 * time.Second // of the kubelet, after a pull that failed
)

// refuser decides which requests a registry refuses.
type refuser func() bool

// byChance refuses a part of all requests: other nodes use up the quota of the account.
func byChance(part float64) func(seed uint64) refuser {
	return func(seed uint64) refuser {
		random := rand.New(rand.NewPCG(seed, uint64(100*part)))
		return func() bool { return random.Float64() < part }
	}
}

// byQuota refuses what exceeds a number of requests a second.
func byQuota(perSecond float64) func(seed uint64) refuser {
	return func(uint64) refuser {
		tokens, at := perSecond, time.Now()
		return func() bool {
			now := time.Now()
			tokens = min(tokens+perSecond*now.Sub(at).Seconds(), perSecond)
			at = now
			if tokens < 1 {
				return true
			}
			tokens--
			return false
		}
	}
}

// throttlingRegistry refuses some requests. It is safe for concurrent use.
type throttlingRegistry struct {
	mu      sync.Mutex // guards refuses
	refuses refuser
}

func (r *throttlingRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	refused := r.refuses()
	r.mu.Unlock()
	if refused {
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	content(w, req)
}

// refusesDirect is a request of a client without Larder: containerd tries five times at once.
// It reports whether all were refused.
func (r *throttlingRegistry) refusesDirect() bool {
	for range 5 {
		pass(20 * time.Millisecond)
		r.mu.Lock()
		refused := r.refuses()
		r.mu.Unlock()
		if !refused {
			return false
		}
	}
	return true
}

// rollout runs the pulls, and returns how many were done, and when the last one was. step is
// one request of a client through Larder, or nil: then clients have no Larder. A step that
// fails there is taken at the registry.
func rollout(registry *throttlingRegistry, step func(image, n int) error) (done int, took time.Duration) {
	began := time.Now()
	var mu sync.Mutex
	var clients sync.WaitGroup
	for i := range rolloutImages * rolloutClients {
		clients.Go(func() {
			pause := firstPause
			for n := 0; n < rolloutSteps; n++ {
				failed := step == nil || step(i%rolloutImages, n) != nil
				if !failed || !registry.refusesDirect() {
					continue
				}
				if time.Since(began)+pause > rolloutEnd {
					return
				}
				pass(pause) // ImagePullBackOff; layers that it has are not asked for again
				pause = min(2*pause, 5*time.Minute)
				n--
			}
			mu.Lock()
			defer mu.Unlock()
			done++
			took = max(took, time.Since(began))
		})
	}
	clients.Wait()
	return done, took
}

// TestRolloutThroughAThrottlingRegistryIsNeverWorseThanWithoutLarder compares the sums of
// some rollouts: chance decides much in one. It logs the figures that PROTOCOL.md gives.
func TestRolloutThroughAThrottlingRegistryIsNeverWorseThanWithoutLarder(t *testing.T) {
	const rollouts, all = 5, 5 * rolloutImages * rolloutClients
	for name, c := range map[string]struct {
		refuser func(seed uint64) refuser
		within  time.Duration // that a rollout through one Larder takes
	}{
		"half of all refused":  {byChance(0.5), 30 * time.Second},
		"8 of 10 refused":      {byChance(0.8), 2 * time.Minute},
		"9 of 10 refused":      {byChance(0.9), 8 * time.Minute},
		"a quota of 5":         {byQuota(5), 30 * time.Second},
		"a quota of 20":        {byQuota(20), 10 * time.Second},
		"nothing is throttled": {byChance(0), time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			direct := sumRollouts(t, rollouts, 0, c.refuser)
			for _, larders := range []int{1, 6} {
				got := sumRollouts(t, rollouts, larders, c.refuser)
				t.Logf("%d Larders: %d of %d pulls, in %v each time; without: %d, in %v",
					larders, got.done, all, (got.took / rollouts).Round(time.Second), direct.done, (direct.took / rollouts).Round(time.Second))
				if got.done < direct.done || got.done == direct.done && got.took > direct.took+rollouts*firstPause { // a pause more or less is chance
					t.Errorf("%d Larders: %d pulls in %v, and without Larder %d in %v", larders, got.done, got.took, direct.done, direct.took)
				}
				if larders == 1 && (got.done < all*97/100 || got.took > rollouts*c.within) {
					t.Errorf("%d of %d pulls in %v, want nearly all within %v", got.done, all, got.took, rollouts*c.within)
				}
			}
		})
	}
}

// rolloutSum is how many pulls were done, and when the last one was.
type rolloutSum struct {
	done int
	took time.Duration
}

// sumRollouts adds up rollouts through some Larders, or without one.
func sumRollouts(t *testing.T, rollouts, larders int, refuser func(seed uint64) refuser) (sum rolloutSum) {
	t.Helper()
	for seed := range uint64(rollouts) {
		synctest.Test(t, func(t *testing.T) {
			registry := &throttlingRegistry{refuses: refuser(seed)}
			var step func(image, n int) error
			if larders > 0 {
				nodes := make([]func(image, n int) error, larders)
				for i := range nodes {
					nodes[i] = larder(t, registry)
				}
				var next atomic.Int64
				step = func(image, n int) error { return nodes[int(next.Add(1))%larders](image, n) }
			}
			done, took := rollout(registry, step)
			if done < rolloutImages*rolloutClients {
				took = rolloutEnd // some never finish
			}
			sum.done += done
			sum.took += took
		})
	}
	return sum
}

// larder returns the step of a pull through one Larder, which asks once for all clients and
// keeps what it has.
func larder(t *testing.T, registry *throttlingRegistry) func(image, n int) error {
	t.Helper()
	r := startInBubble(t, registry.ServeHTTP)
	var asked singleflight.Group
	var mu sync.Mutex
	kept := make(map[string]bool)
	return func(image, n int) error {
		key := fmt.Sprint(image, "/", n)
		mu.Lock()
		have := kept[key]
		mu.Unlock()
		if have {
			return nil
		}
		_, err, _ := asked.Do(key, func() (any, error) {
			var err error
			switch tag := fmt.Sprint("v", image); n {
			case 0, 1:
				_, _, err = r.Manifest(t.Context(), repo, tag, n == 0)
			default:
				var part Content
				if part, err = r.OpenBlob(t.Context(), repo, someBlob, Range{Len: 100}); err == nil {
					err = part.Body.Close()
				}
			}
			if err == nil {
				mu.Lock()
				kept[key] = true
				mu.Unlock()
			}
			return nil, err
		})
		return err
	}
}
