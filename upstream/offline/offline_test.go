package offline_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/offline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newGate returns the gate of an upstream that is offline while it is told so.
func newGate() (g *offline.Gate, isOffline *atomic.Bool) {
	isOffline = new(atomic.Bool)
	return offline.New(func() error {
		if isOffline.Load() {
			return &offline.Error{Host: "registry.test"}
		}
		return nil
	}), isOffline
}

func TestGateEndsRequestsWhenTheUpstreamGoesOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, isOffline := newGate()
		ctx, leave, err := g.Enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
		g.Cut()
		synctest.Wait()
		if ctx.Err() != nil {
			t.Errorf("the request of an upstream that is not offline ended: %v", context.Cause(ctx))
		}
		isOffline.Store(true)
		g.Cut()
		synctest.Wait()
		if cause := context.Cause(ctx); !offline.Is(cause) {
			t.Errorf("the request ended with %v", cause)
		}
		if _, _, err := g.Enter(t.Context()); !offline.Is(err) {
			t.Errorf("another request: %v", err)
		}
		isOffline.Store(false)
		ctx, leave, err = g.Enter(t.Context())
		if err != nil || ctx.Err() != nil {
			t.Fatalf("a request after the upstream is online again: %v", err)
		}
		leave()
	})
}

func TestGateEndsARequestWithItsContext(t *testing.T) {
	g, _ := newGate()
	errLeft := errors.New("the client left")
	parent, cancel := context.WithCancelCause(t.Context())
	ctx, leave, err := g.Enter(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	cancel(errLeft)
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, errLeft) {
		t.Errorf("ended with %v", cause)
	}
}

func TestNilGateIsOpen(t *testing.T) {
	var g *offline.Gate
	_, leave, err := g.Enter(t.Context())
	if err != nil || g.Check() != nil {
		t.Fatal(err, g.Check())
	}
	leave()
	g.Cut()
}
