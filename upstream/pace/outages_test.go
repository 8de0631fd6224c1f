package pace_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/upstream/pace"
)

var errUnreachable = errors.New("no route to the test")

// line is an address that can be cut off. Dialling it takes a while.
type line struct {
	outages *pace.Outages
	takes   time.Duration
	err     error
	dialled int
}

func (l *line) dial(ctx context.Context) error {
	_, err := l.outages.Dial(ctx, "host:443", func() (net.Conn, error) {
		l.dialled++
		select {
		case <-time.After(l.takes):
			return nil, l.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	return err
}

func TestUnreachableAddressIsLeftAloneForGrowingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{outages: pace.NewOutages(), err: errUnreachable}
		for i, pause := range []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second} {
			_ = l.dial(t.Context())
			if l.dialled != i+1 {
				t.Fatalf("after its pause: dialled %d times, want %d", l.dialled, i+1)
			}
			pass(pause - time.Millisecond)
			if err := l.dial(t.Context()); l.dialled != i+1 || !errors.Is(err, errUnreachable) {
				t.Fatalf("within its pause of %v: dialled %d times, want %d; the error is %v", pause, l.dialled, i+1, err)
			}
			pass(time.Millisecond)
		}
	})
}

func TestAddressThatTimesOutIsLeftAloneAsLongAsTheAttemptTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{outages: pace.NewOutages(), err: errUnreachable, takes: pace.ConnectTimeout}
		_ = l.dial(t.Context())
		pass(pace.ConnectTimeout - time.Millisecond)
		began := time.Now()
		if err := l.dial(t.Context()); !errors.Is(err, errUnreachable) || time.Since(began) > 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestOneRequestDialsAgainAndTheOthersFailAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{outages: pace.NewOutages(), err: errUnreachable, takes: time.Second}
		_ = l.dial(t.Context())
		pass(time.Minute)
		l.err = nil
		probe := make(chan error)
		go func() { probe <- l.dial(t.Context()) }()
		synctest.Wait()
		if err := l.dial(t.Context()); !errors.Is(err, errUnreachable) {
			t.Errorf("beside the probe: %v", err)
		}
		if err := <-probe; err != nil || l.dialled != 2 {
			t.Errorf("the probe: %v, dialled %d times", err, l.dialled)
		}
		if err := l.dial(t.Context()); err != nil {
			t.Errorf("after the outage: %v", err)
		}
	})
}

func TestAbandonedDialChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{outages: pace.NewOutages(), err: errUnreachable, takes: time.Second}
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_ = l.dial(short)
		_ = l.dial(t.Context())
		if l.dialled != 2 {
			t.Errorf("a first dial that was given up counts: dialled %d times", l.dialled)
		}
		pass(time.Minute)
		short, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_ = l.dial(short)
		_ = l.dial(t.Context())
		if l.dialled != 4 {
			t.Errorf("a probe that was given up holds others off: dialled %d times", l.dialled)
		}
	})
}
