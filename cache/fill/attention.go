package fill

import "context"

// attention is closed when somebody begins to wait for work.
type attention chan struct{}

// begin closes it, unless it is closed. Calls must not run at the same time.
func (a attention) begin() {
	select {
	case <-a:
	default:
		close(a)
	}
}

// attentionKey is the key of an attention in the contexts of work that may be done for nobody.
type attentionKey struct{}

// Unattended returns a context for work that nobody waits for.
func Unattended(ctx context.Context) context.Context {
	return context.WithValue(ctx, attentionKey{}, attention(nil))
}

// Attention returns a channel that is closed if somebody waits for the work of a context. It is
// nil for a context of [Unattended]. That of the context with which a fill calls a [Fetch] is
// closed once a client has asked for the blob, or a caller of [Fill.Fetch] whose context is
// attended; this may happen while the call, or the reading of its content, goes on.
func Attention(ctx context.Context) <-chan struct{} {
	if a, ok := ctx.Value(attentionKey{}).(attention); ok {
		return a
	}
	attended := make(chan struct{})
	close(attended)
	return attended
}

// IsAttended reports whether the channel of [Attention] is closed.
func IsAttended(ctx context.Context) bool {
	select {
	case <-Attention(ctx):
		return true
	default:
		return false
	}
}
