package pace_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// queue has requests of these priorities wait, one after the other, and returns
// the numbers of those that were sent, in order.
func queue(t *testing.T, l *pace.Limiter, order ...pace.Priority) []int {
	t.Helper()
	var mu sync.Mutex
	var served []int
	var done sync.WaitGroup
	for i, p := range order {
		done.Go(func() {
			if _, err := l.Wait(t.Context(), p, time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			served = append(served, i)
		})
		synctest.Wait()
	}
	done.Wait()
	return served
}

func TestManifestsGoBeforeBlobsAndClientsBeforeBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttled(t, 5)
		got := queue(t, l, pace.Unattended, pace.Blobs, pace.Unattended, pace.Blobs, pace.Manifests, pace.Manifests, pace.Manifests)
		// The fourth turn is a blob's in any case.
		if diff := cmp.Diff([]int{4, 5, 6, 1, 3, 0, 2}, got); diff != "" {
			t.Errorf("served in this order (-want +got):\n%s", diff)
		}
	})
}

func TestBackgroundRequestBecomesThatOfAClientWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttled(t, 5)
		attended := make(chan struct{})
		results := make(chan string, 3)
		send := func(ctx context.Context, name string) {
			go func() {
				if _, err := l.Wait(ctx, pace.Blobs, time.Now().Add(time.Hour)); err != nil {
					t.Error(err)
				}
				results <- name
			}()
			synctest.Wait()
		}
		send(pace.Background(t.Context()), "background")
		send(pace.BackgroundUntil(t.Context(), attended), "joined")
		send(t.Context(), "client")
		close(attended)
		for _, want := range []string{"client", "joined", "background"} {
			if got := <-results; got != want {
				t.Errorf("sent %s, want %s", got, want)
			}
		}
	})
}

func TestStreamOfManifestsDoesNotHoldUpBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttled(t, 5)
		ctx, cancel := context.WithCancel(t.Context())
		var crowd sync.WaitGroup
		for range 20 {
			crowd.Go(func() {
				for ctx.Err() == nil {
					_, _ = l.Wait(ctx, pace.Manifests, time.Now().Add(time.Hour))
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		for range 5 {
			mustWait(t, l, pace.Blobs)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("five blobs took %v at 5 requests a second", took)
		}
		cancel()
		crowd.Wait()
	})
}

func TestRequestThatCannotBeSentInTimeFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttled(t, 5)
		began := time.Now()
		results := make(chan error)
		for range 100 {
			go func() {
				_, err := l.Wait(t.Context(), pace.Manifests, began.Add(2100*time.Millisecond))
				results <- err
			}()
		}
		sent, failed := 0, 0
		for range 100 {
			if err := <-results; err == nil {
				sent++
			} else if failed++; time.Since(began) != 0 {
				t.Errorf("failed after %v: %v", time.Since(began), err)
			}
		}
		if sent != 10 || failed != 90 {
			t.Errorf("%d were sent and %d failed, want 10 and 90", sent, failed)
		}
	})
}

func TestWaitIsNeverLongerThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttled(t, 5)
		began := time.Now()
		late := make(chan error)
		go func() {
			_, err := l.Wait(t.Context(), pace.Unattended, began.Add(2*time.Second))
			late <- err
		}()
		synctest.Wait()
		var sent atomic.Int64
		for range 50 { // come later, and go before
			go func() {
				if _, err := l.Wait(t.Context(), pace.Manifests, began.Add(time.Minute)); err == nil {
					sent.Add(1)
				}
			}()
		}
		wantThrottled(t, <-late, 200*time.Millisecond)
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("waited %v, want 2s", took)
		}
		synctest.Wait()
		if n, want := l.Backlog().Waiting, 50-int(sent.Load()); n != want {
			t.Errorf("%d are left in the queue, want %d", n, want)
		}
		pass(time.Minute)
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttled(t, 5)
		ctx, cancel := context.WithCancel(t.Context())
		var crowd sync.WaitGroup
		for range maxWaiting {
			crowd.Go(func() { _, _ = l.Wait(ctx, pace.Blobs, time.Now().Add(time.Hour)) })
		}
		synctest.Wait()
		if _, err := l.Wait(ctx, pace.Manifests, time.Now().Add(time.Hour)); !reply.IsThrottled(err) {
			t.Errorf("number %d waits: %v", maxWaiting+1, err)
		}
		cancel()
		crowd.Wait()
		if n := l.Backlog().Waiting; n != 0 {
			t.Errorf("%d are left in the queue", n)
		}
	})
}

func TestWaitForATurnEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttled(t, 5)
		gone := errors.New("the client hung up")
		for name, test := range map[string]struct {
			cause     error
			throttled bool
		}{
			"client":  {gone, false},
			"timeout": {reply.ErrTimeout, true}, // of which the throttling is the reason
		} {
			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan error, 1)
			go func() {
				_, err := l.Wait(ctx, pace.Manifests, time.Now().Add(time.Hour))
				ended <- err
			}()
			synctest.Wait()
			cancel(test.cause)
			if err := <-ended; reply.IsThrottled(err) != test.throttled || !test.throttled && !errors.Is(err, test.cause) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
