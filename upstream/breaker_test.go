package upstream

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestBreakerOpensAfterFailuresInARow(t *testing.T) {
	var b breaker
	for range maxFailures - 1 {
		b.failed(false, false)
	}
	b.succeeded()
	for i := range maxFailures {
		if ok, try := b.enter(); !ok || try {
			t.Fatalf("closed after %d failures", i)
		}
		if opened := b.failed(false, false); opened != (i == maxFailures-1) {
			t.Errorf("failure %d: news %t", i+1, opened)
		}
	}
	if ok, _ := b.enter(); ok {
		t.Errorf("still let in after %d failures", maxFailures)
	}
}

func TestSilenceOpensABreakerAtOnce(t *testing.T) {
	var b breaker
	if !b.failed(false, true) {
		t.Error("silence is no news")
	}
	if ok, _ := b.enter(); ok {
		t.Error("still let in")
	}
}

func TestOneTriesAnOpenBreakerAtATimeAndEverLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b breaker
		b.failed(false, true)
		for _, pause := range []time.Duration{firstBreak, 2 * firstBreak, 4 * firstBreak, 8 * firstBreak, longestBreak, longestBreak} {
			pass(pause - time.Millisecond)
			if ok, _ := b.enter(); ok {
				t.Fatalf("let in before %v", pause)
			}
			pass(time.Millisecond)
			if ok, try := b.enter(); !ok || !try {
				t.Fatalf("nobody may try after %v", pause)
			}
			if ok, _ := b.enter(); ok {
				t.Fatal("two try at once")
			}
			b.failed(false, true) // one that asked as a last resort
			if b.failed(true, false) {
				t.Error("a try that fails is news")
			}
		}
		pass(longestBreak)
		b.enter()
		b.abandoned(true)
		if ok, try := b.enter(); !ok || !try {
			t.Error("a try that was given up holds others off")
		}
		if !b.succeeded() {
			t.Error("that it is back is no news")
		}
		if ok, try := b.enter(); !ok || try {
			t.Error("not let in after a success")
		}
		if b.succeeded() {
			t.Error("a second success is news")
		}
	})
}
