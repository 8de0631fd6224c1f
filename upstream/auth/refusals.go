package auth

import (
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/larder-registry/larder/upstream/pace"
)

// Refusals keeps a registry that refuses every token from costing a new token for
// each request. The first refusal after a token was accepted renews at once, as
// tokens expire and are revoked. Until another one is accepted, renewals are
// spaced by growing pauses, and refusals in between are final. It is safe for
// concurrent use. Each registry has its own, even if registries share tokens.
type Refusals struct {
	now func() time.Time

	mu          sync.Mutex // guards what follows
	refused     string     // the token whose refusal renewed last; "" once one was accepted
	replacement string     // the token in its place, once known
	pauses      *backoff.ExponentialBackOff
	resume      time.Time // when a refusal renews again
}

// firstRenewalPause and longestRenewalPause space renewals that do not help.
const (
	firstRenewalPause   = time.Second
	longestRenewalPause = time.Minute
)

// NewRefusals returns one that has seen no refusal, with this clock.
func NewRefusals(now func() time.Time) *Refusals {
	return &Refusals{now: now, pauses: pace.NewBackoff(firstRenewalPause, longestRenewalPause)}
}

// Renew reports whether to renew a token that was refused, or to try the one that
// has taken its place.
func (r *Refusals) Renew(used string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	switch {
	case r.refused == "":
		r.pauses.Reset()
	case used == r.refused && r.replacement != r.refused:
		return true // one of several requests that had it
	case now.Before(r.resume):
		return false
	}
	r.refused, r.replacement = used, ""
	r.resume = now.Add(r.pauses.NextBackOff())
	return true
}

// Renewed records the token that took the place of a refused one; "" if none did.
func (r *Refusals) Renewed(used, token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if used == r.refused {
		r.replacement = token
	}
}

// Accepted records that the registry accepted a token.
func (r *Refusals) Accepted(used string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if used != r.refused || used == r.replacement {
		r.refused, r.replacement = "", ""
	}
}
