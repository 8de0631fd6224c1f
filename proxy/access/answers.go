package access

import (
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxAnswers bounds the answers of each kind: for 100 clients of 100 repositories there are 10,000.
const maxAnswers = 16384

// answers has what upstreams have said. Gate.mu guards it. The two kinds are apart, so that no number of
// refused requests makes a yes forgotten.
type answers struct {
	yes, no *simplelru.LRU[subject, answer]
}

// answer is when an upstream said yes or no, and of which user.
type answer struct {
	user string
	at   time.Time
}

func newAnswers() *answers {
	yes, _ := simplelru.NewLRU[subject, answer](maxAnswers, nil) // fails only for a size that is not positive
	no, _ := simplelru.NewLRU[subject, answer](maxAnswers, nil)
	return &answers{yes, no}
}

// allow adds a yes.
func (a *answers) allow(s subject, one answer) {
	a.no.Remove(s)
	a.yes.Add(s, one)
}

// refuse adds a no, and removes what it ends. It reports whether that is something.
func (a *answers) refuse(s subject, one answer) (ended bool) {
	a.no.Add(s, one)
	return a.end(s)
}

// end removes each yes from which one to s follows, or that is less than it, and reports whether there
// was one.
func (a *answers) end(s subject) (ended bool) {
	rights := []Right{List}
	switch s.right {
	case Pull, PullBlobs:
		rights = []Right{Pull, PullBlobs}
	case Login:
		rights = []Right{Pull, PullBlobs, List}
		w, _ := s.wider()
		ended = a.yes.Remove(w)
	}
	for _, s.right = range rights {
		ended = a.yes.Remove(s) || ended
	}
	return ended
}

// allows reports whether there is a yes to s, not older than life.
func (a *answers) allows(s subject, now time.Time, life time.Duration) bool {
	if yes, ok := a.yes.Get(s); ok && within(now, yes.at, life) {
		return true
	}
	w, ok := s.wider()
	if !ok {
		return false
	}
	yes, ok := a.yes.Get(w)
	return ok && within(now, yes.at, life)
}

// allowsSome is allows for any right in the repository.
func (a *answers) allowsSome(s subject, now time.Time, life time.Duration) bool {
	for _, s.right = range []Right{Login, Pull, PullBlobs, List} {
		if a.allows(s, now, life) {
			return true
		}
	}
	return false
}

// refuses reports whether there is a no to s, not older than life.
func (a *answers) refuses(s subject, now time.Time, life time.Duration) bool {
	no, ok := a.no.Get(s)
	return ok && within(now, no.at, life)
}

// each calls f for each answer, the ones that were used longest ago first.
func (a *answers) each(f func(s subject, one answer, allowed bool)) {
	for _, list := range []*simplelru.LRU[subject, answer]{a.yes, a.no} {
		for _, s := range list.Keys() {
			one, _ := list.Peek(s)
			f(s, one, list == a.yes)
		}
	}
}

// forget removes the answers that match is true for, and returns how many these were.
func (a *answers) forget(match func(subject, answer) bool) (forgotten int) {
	a.each(func(s subject, one answer, allowed bool) {
		if !match(s, one) {
			return
		}
		forgotten++
		if allowed {
			a.yes.Remove(s)
		} else {
			a.no.Remove(s)
		}
	})
	return forgotten
}

// within reports whether something holds that an upstream said at a time. A time in the future
// comes from a clock that was wrong.
func within(now, at time.Time, life time.Duration) bool {
	age := now.Sub(at)
	return 0 <= age && age < life
}
