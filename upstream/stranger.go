package upstream

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// stranger asks a registry that has not challenged whether it wants a login. The
// zero value has not asked. It is safe for concurrent use.
type stranger struct {
	flights singleflight.Group
	asked   atomic.Pointer[time.Time] // when the registry last said that it wants none
}

// strangerPause is how long the answer that no login is wanted holds. Most registries
// that lack an image want none, and must not be asked twice for each.
const strangerPause = 10 * time.Minute

// ask reports whether the registry wants a login. Concurrent callers share one
// request, which ctx does not end.
func (g *stranger) ask(ctx context.Context, request func(context.Context) (challenged bool, err error)) bool {
	if at := g.asked.Load(); at != nil && time.Since(*at) < strangerPause {
		return false
	}
	got := g.flights.DoChan("", func() (any, error) {
		challenged, err := request(context.WithoutCancel(ctx))
		if err == nil && !challenged {
			g.asked.Store(new(time.Now()))
		}
		return challenged, err
	})
	select {
	case r := <-got:
		return r.Err == nil && r.Val.(bool)
	case <-ctx.Done():
		return false
	}
}
