package pace

import (
	"context"
)

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

// backgroundKey marks a context in [Background].
type backgroundKey struct{}

// Background returns a context for requests that no client waits for. While
// their upstream throttles, requests of clients go first.
func Background(ctx context.Context) context.Context {
	return context.WithValue(ctx, backgroundKey{}, true)
}

// PriorityOf returns p, or Unattended if ctx is one of [Background].
func PriorityOf(ctx context.Context, p Priority) Priority {
	if ctx.Value(backgroundKey{}) != nil {
		return Unattended
	}
	return p
}
