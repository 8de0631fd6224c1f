package fill

import (
	"context"
	"io"
	"sync/atomic"
)

// turns knows whether bodies of a fill wait for their turns: see [Rationed]. It is safe for
// concurrent use.
type turns struct {
	waiting atomic.Int32
	late    atomic.Bool // one has waited
}

// await waits until a body may be read. t may be nil.
func (t *turns) await(ctx context.Context, body io.Reader) error {
	rationed, ok := body.(Rationed)
	if !ok {
		return nil
	}
	if t == nil {
		_, err := rationed.Turn(ctx)
		return err
	}
	t.waiting.Add(1)
	defer t.waiting.Add(-1)
	waited, err := rationed.Turn(ctx)
	if waited {
		t.late.Store(true)
	}
	return err
}

// waited reports whether a body waits, or has waited since the last call.
func (t *turns) waited() bool { return t.late.Swap(false) || t.waiting.Load() > 0 }
