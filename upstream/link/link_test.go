package link

import (
	"context"
	"errors"
	"io"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream/pace"
)

// endless is a body of an upstream that sends at any rate.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
func (endless) Close() error               { return nil }

// transfer reads a body until its context ends, or its link refuses it.
type transfer struct {
	got  atomic.Int64
	stop context.CancelFunc
	done chan struct{}
	err  error // set before done is closed
}

func (l *Link) transfer(ctx context.Context) *transfer {
	ctx, cancel := context.WithCancel(ctx)
	t := &transfer{stop: cancel, done: make(chan struct{})}
	body := l.Body(ctx, endless{})
	go func() {
		defer close(t.done)
		defer body.Close()
		buf := make([]byte, 32<<10)
		for t.err == nil {
			var n int
			n, t.err = body.Read(buf)
			t.got.Add(int64(n))
			if t.err == nil {
				t.err = ctx.Err()
			}
		}
	}()
	return t
}

// end ends the transfer, and waits for that.
func (t *transfer) end() {
	t.stop()
	<-t.done
}

// pass lets time pass, and returns how many bytes each transfer got in it.
func pass(d time.Duration, all ...*transfer) []int64 {
	got := make([]int64, len(all))
	for i, t := range all {
		got[i] = -t.got.Load()
	}
	time.Sleep(d) //nolint:forbidigo // synctest's clock: no real time passes
	synctest.Wait()
	for i, t := range all {
		got[i] += t.got.Load()
	}
	return got
}

// wantAbout checks a number of bytes, to a part of want.
func wantAbout(t *testing.T, of string, got, want int64, tolerance float64) {
	t.Helper()
	if off := float64(got - want); math.Abs(off) > tolerance*float64(want) {
		t.Errorf("%s: %d bytes, want %d within %v %%", of, got, want, 100*tolerance)
	}
}

const mega = 1_000_000

func TestClientHasItsBytesFirstAndTheSumHolds(t *testing.T) {
	for _, rate := range []int64{20_000, 2 * mega, 20 * mega} {
		synctest.Test(t, func(t *testing.T) {
			l := New(Rules{Rate: rate})
			background := l.transfer(pace.Background(t.Context()))
			defer background.end()
			alone := pass(time.Minute, background)
			wantAbout(t, "the background alone", alone[0], 60*rate, 0.01)
			client := l.transfer(For(t.Context(), "192.0.2.1"))
			both := pass(time.Minute, client, background)
			wantAbout(t, "both", both[0]+both[1], 60*rate, 0.01)
			wantAbout(t, "the client", both[0], 57*rate, 0.01)
			wantAbout(t, "the background", both[1], 3*rate, 0.05)
			client.end()
			again := pass(time.Minute, background)
			wantAbout(t, "the background after the client", again[0], 60*rate, 0.01)
			st := l.Status()
			wantAbout(t, "counted for clients", st.Clients, client.got.Load(), 0)
			wantAbout(t, "counted for none", st.Unattended, background.got.Load(), 0)
		})
	}
}

// A client that opens many bodies gets no more than one that opens one.
func TestClientsShareTheRateEqually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Rules{Rate: 3 * mega})
		var all []*transfer
		for range 8 {
			all = append(all, l.transfer(For(t.Context(), "192.0.2.1")))
		}
		all = append(all, l.transfer(For(t.Context(), "192.0.2.2")), l.transfer(For(t.Context(), "192.0.2.3")))
		got := pass(time.Minute, all...)
		var many int64
		for _, n := range got[:8] {
			wantAbout(t, "one of eight bodies", n, 60*mega/8, 0.05)
			many += n
		}
		wantAbout(t, "the client of eight bodies", many, 60*mega, 0.01)
		wantAbout(t, "the second client", got[8], 60*mega, 0.01)
		wantAbout(t, "the third client", got[9], 60*mega, 0.01)
		for _, tr := range all {
			tr.end()
		}
	})
}

func TestBackgroundHasARateOfItsOwn(t *testing.T) {
	for _, whole := range []int64{0, 2 * mega} {
		synctest.Test(t, func(t *testing.T) {
			l := New(Rules{Rate: whole, Background: mega / 2})
			one, two := l.transfer(pace.Background(t.Context())), l.transfer(pace.Background(t.Context()))
			defer one.end()
			defer two.end()
			got := pass(time.Minute, one, two)
			wantAbout(t, "both", got[0]+got[1], 30*mega, 0.01)
			wantAbout(t, "one of them", got[0], 15*mega, 0.01)
			if whole > 0 {
				client := l.transfer(t.Context())
				defer client.end()
				got := pass(time.Minute, client, one, two)
				wantAbout(t, "all", got[0]+got[1]+got[2], 120*mega, 0.01)
				if got[0] < 90*mega {
					t.Errorf("the client got %d bytes", got[0])
				}
			}
		})
	}
}

func TestFillBecomesAClientsAtOnce(t *testing.T) {
	for name, rules := range map[string]Rules{
		"while it waits for its own rate": {Rate: 2 * mega, Background: 10_000},
		"while it waits for clients":      {Rate: 2 * mega},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(rules)
				attended := make(chan struct{})
				fill := l.transfer(For(pace.BackgroundUntil(t.Context(), attended), "192.0.2.1"))
				client := l.transfer(For(t.Context(), "192.0.2.2"))
				before := pass(time.Minute, fill, client)
				if before[0] > before[1]/18 {
					t.Errorf("in the background it got %d bytes, a client %d", before[0], before[1])
				}
				close(attended)
				at := pass(200*time.Millisecond, fill, client)
				if at[0] == 0 {
					t.Error("it got nothing at once")
				}
				after := pass(time.Minute, fill, client)
				wantAbout(t, "the fill", after[0], 60*mega, 0.01)
				wantAbout(t, "the other client", after[1], 60*mega, 0.01)
				fill.end()
				client.end()
			})
		})
	}
}

// at makes synctest's clock, which begins at midnight UTC, show a time of the day.
func at(hour, minute int) {
	now := time.Now()
	target := time.Date(now.Year(), now.Month(), now.Day(), hour, minute, 0, 0, now.Location())
	for !target.After(now) {
		target = target.Add(24 * time.Hour)
	}
	time.Sleep(target.Sub(now)) //nolint:forbidigo // synctest's clock: no real time passes
}

func TestBackgroundKeepsItsHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Rules{Rate: 20_000, Hours: Hours{From: 22 * 60, To: 5 * 60}})
		at(21, 59)
		early := l.transfer(pace.Background(t.Context()))
		<-early.done
		var closed *ClosedError
		if !errors.As(early.err, &closed) || closed.RetryAfter() != time.Minute || !closed.Postponed() {
			t.Fatalf("a minute before its hours it ended with %v", early.err)
		}
		if err := l.Postponed(); !errors.As(err, &closed) {
			t.Errorf("Postponed: %v", err)
		}
		client := l.transfer(t.Context())
		wantAbout(t, "a client outside of the hours", pass(time.Minute, client)[0], 60*20_000, 0.01)
		client.end()
		if err := l.Postponed(); err != nil {
			t.Errorf("at ten: %v", err)
		}
		night := l.transfer(pace.Background(t.Context()))
		wantAbout(t, "the night", pass(7*time.Hour-time.Second, night)[0], (7*3600-1)*20_000, 0.01)
		pass(2*time.Second, night)
		<-night.done
		if !errors.As(night.err, &closed) || closed.Until.Hour() != 22 {
			t.Errorf("at five it ended with %v", night.err)
		}
		if st := l.Status(); st.ShutUntil == nil || st.ShutUntil.Hour() != 22 || st.Hours != "22:00-05:00" {
			t.Errorf("Status: %+v", st)
		}
	})
}

// A transfer that waits for its turn when the hours end must not sleep through the end.
func TestWaitForATurnEndsWithTheHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Rules{Background: 1, Hours: Hours{From: 22 * 60, To: 5 * 60}}) // the second turn takes an hour
		at(4, 50)
		slow := l.transfer(pace.Background(t.Context()))
		pass(10*time.Minute+time.Second, slow)
		select {
		case <-slow.done:
		default:
			t.Error("it waits on")
			slow.end()
		}
		if !errors.As(slow.err, new(*ClosedError)) {
			t.Errorf("it ended with %v", slow.err)
		}
	})
}

func TestNewRulesHoldForWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Rules{Rate: 1000}) // one turn is four seconds
		client, background := l.transfer(t.Context()), l.transfer(pace.Background(t.Context()))
		pass(time.Minute, client)
		l.Set(Rules{Rate: 10 * mega})
		wantAbout(t, "after it was raised", pass(time.Second, client)[0], 9_500_000, 0.01)
		l.Set(Rules{Rate: 100_000})
		wantAbout(t, "after it was lowered", pass(time.Minute, client)[0], 57*100_000, 0.02)
		l.Set(Rules{Rate: 100_000, Hours: Hours{From: 22 * 60, To: 23 * 60}}) // it is just after midnight
		synctest.Wait()
		<-background.done
		if !errors.As(background.err, new(*ClosedError)) {
			t.Errorf("outside of the new hours the background ended with %v", background.err)
		}
		client.end()
	})
}

// counted is a body of some bytes.
type counted struct{ left int }

func (c *counted) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), c.left)
	c.left -= n
	return n, nil
}

func (c *counted) Close() error { return nil }

func TestNoRuleHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Rules{Rate: 1000})
		body := l.Body(t.Context(), &counted{left: 100 * mega})
		defer body.Close()
		done := make(chan int64)
		go func() {
			n, _ := io.Copy(io.Discard, body)
			done <- n
		}()
		pass(time.Second)
		began := time.Now()
		l.Set(Rules{})
		if n := <-done; n != 100*mega || time.Since(began) > 0 {
			t.Errorf("without a rule %d bytes took %v", n, time.Since(began))
		}
	})
	var none *Link
	if body := (&counted{}); none.Body(t.Context(), body) != io.ReadCloser(body) || none.Postponed() != nil {
		t.Error("a nil link has rules")
	}
	none.Charge(t.Context(), 1)
}

func TestBodiesPayForWhatDidNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Rules{Rate: mega})
		client := l.transfer(t.Context())
		defer client.end()
		pass(time.Second, client)
		l.Charge(t.Context(), 4*mega)
		wantAbout(t, "a client beside manifests", pass(10*time.Second, client)[0], 6*mega, 0.01)
	})
}

// What was paid for and not read is used by others.
func TestShortBodiesDoNotWasteTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Rules{Rate: mega})
		began := time.Now()
		for range 1000 {
			body := l.Body(t.Context(), &counted{left: 10_000})
			if _, err := io.Copy(io.Discard, body); err != nil {
				t.Fatal(err)
			}
			if err := body.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 9*time.Second || took > 10500*time.Millisecond {
			t.Errorf("10 MB at 1 MB/s took %v", took)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Rules{Rate: 1000})
		first, second := l.transfer(t.Context()), l.transfer(t.Context())
		pass(time.Second, first)
		second.end()
		first.end()
		third := l.transfer(t.Context())
		defer third.end()
		wantAbout(t, "the rate is not lost with them", pass(10*time.Minute, third)[0], 600_000, 0.02)
	})
}
