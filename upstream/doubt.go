package upstream

import (
	"sync"
	"time"
)

// doubt keeps a registry that refuses every token from costing a new token for
// each request. The first refusal after a token was accepted renews at once:
// tokens expire, and are revoked. Until one is accepted again, renewals are
// spaced by growing pauses, and refusals in between are final. It is safe for
// concurrent use; one registry has one, whoever shares its tokens.
type doubt struct {
	now func() time.Time

	mu          sync.Mutex // guards what follows
	old         string     // the token whose refusal renewed last; "" while there is no doubt
	replacement string     // what came in its place, once that is known
	pause       time.Duration
	resume      time.Time // when a refusal renews again
}

// renews reports whether the refusal of a token is a reason to renew it, or to
// try the one that has come in its place.
func (d *doubt) renews(used string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	switch {
	case d.old == "":
		d.pause = 0
	case used == d.old && d.replacement != d.old:
		return true // one of many who had it, or a latecomer
	case now.Before(d.resume):
		return false
	}
	d.old, d.replacement = used, ""
	d.pause = min(max(2*d.pause, firstPause), maxPause)
	d.resume = now.Add(d.pause)
	return true
}

// renewed notes what came in place of a token; "" where nothing did.
func (d *doubt) renewed(used, token string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if used == d.old {
		d.replacement = token
	}
}

// clear notes that the registry took a token.
func (d *doubt) clear(used string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if used != d.old || used == d.replacement {
		d.old, d.replacement = "", ""
	}
}
