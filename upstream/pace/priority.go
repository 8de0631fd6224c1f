package pace

import "context"

// Priority says which of the waiting requests is sent first.
type Priority int

// The priorities, highest first.
const (
	// Manifests are few, and everything else of a pull waits for them.
	Manifests Priority = iota
	Blobs
	// Unattended requests have no client that waits for them.
	Unattended

	priorities
)

// backgroundKey is the key of the channel of a context of [BackgroundUntil].
type backgroundKey struct{}

// Background returns a context for requests that no client waits for. While
// their upstream throttles, requests of clients go first.
func Background(ctx context.Context) context.Context { return BackgroundUntil(ctx, nil) }

// BackgroundUntil is [Background] until attended is closed, since a client waits from then
// on. Nil is never closed.
func BackgroundUntil(ctx context.Context, attended <-chan struct{}) context.Context {
	return context.WithValue(ctx, backgroundKey{}, attended)
}

// BackgroundOf reports whether a context is one for requests that no client waits for
// (background). If so, attended is closed when one does; it may be nil.
func BackgroundOf(ctx context.Context) (attended <-chan struct{}, background bool) {
	attended, background = ctx.Value(backgroundKey{}).(<-chan struct{})
	if !background {
		return nil, false
	}
	select {
	case <-attended:
		return nil, false
	default:
		return attended, true
	}
}
