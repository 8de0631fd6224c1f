package pace_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream/pace"
)

// These are the breaker's own numbers.
const (
	maxFailures  = 3
	firstBreak   = 5 * time.Second
	longestBreak = time.Minute
)

func TestBreakerOpensAfterFailuresInARow(t *testing.T) {
	b := pace.NewBreaker()
	for range maxFailures - 1 {
		b.Failed(false, false)
	}
	b.Succeeded()
	for i := range maxFailures {
		if ok, probe := b.Enter(); !ok || probe {
			t.Fatalf("closed after %d failures", i)
		}
		if opened := b.Failed(false, false); opened != (i == maxFailures-1) {
			t.Errorf("failure %d: opened %t", i+1, opened)
		}
	}
	if ok, _ := b.Enter(); ok {
		t.Errorf("still admitted after %d failures", maxFailures)
	}
}

func TestOneTimeoutOpensABreaker(t *testing.T) {
	b := pace.NewBreaker()
	if !b.Failed(false, true) {
		t.Error("a timeout does not open it")
	}
	if ok, _ := b.Enter(); ok {
		t.Error("still admitted")
	}
}

func TestOpenBreakerAdmitsOneProbeAfterEachGrowingPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pace.NewBreaker()
		b.Failed(false, true)
		for _, pause := range []time.Duration{firstBreak, 2 * firstBreak, 4 * firstBreak, 8 * firstBreak, longestBreak, longestBreak} {
			pass(pause - time.Millisecond)
			if ok, _ := b.Enter(); ok {
				t.Fatalf("admitted before %v", pause)
			}
			pass(time.Millisecond)
			if ok, probe := b.Enter(); !ok || !probe {
				t.Fatalf("no probe is admitted after %v", pause)
			}
			if ok, _ := b.Enter(); ok {
				t.Fatal("two probes are admitted at once")
			}
			b.Failed(false, true) // a request that was no probe
			if b.Failed(true, false) {
				t.Error("a failed probe opens it anew")
			}
		}
		pass(longestBreak)
		b.Enter()
		b.Abandoned(true)
		if ok, probe := b.Enter(); !ok || !probe {
			t.Error("an abandoned probe keeps others from probing")
		}
		if !b.Succeeded() {
			t.Error("a success does not close it")
		}
		if ok, probe := b.Enter(); !ok || probe {
			t.Error("not admitted after a success")
		}
		if b.Succeeded() {
			t.Error("a second success closes it anew")
		}
	})
}
