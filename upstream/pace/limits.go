package pace

import (
	lru "github.com/hashicorp/golang-lru/v2"
)

// Limits has a limiter for each target. It is safe for concurrent use.
type Limits struct {
	limiters *lru.Cache[string, *Limiter]
}

// maxLimits bounds the targets that are remembered. Registries redirect to few
// storage hosts.
const maxLimits = 1024

// NewLimits returns one without limiters.
func NewLimits() *Limits {
	limiters, _ := lru.New[string, *Limiter](maxLimits) // fails only for a size that is not positive
	return &Limits{limiters}
}

// Of returns the limiter with this key. If there is none yet, it makes one as
// [NewLimiter] does.
func (l *Limits) Of(key, target string, most float64) *Limiter {
	if known, ok := l.limiters.Get(key); ok {
		return known
	}
	fresh := NewLimiter(target, most)
	if known, ok, _ := l.limiters.PeekOrAdd(key, fresh); ok {
		return known
	}
	return fresh
}
