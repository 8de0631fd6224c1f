package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// limiter spaces the requests to one place, once that place has said that they
// are too many. Until then it lets everything through.
//
// It limits the rate rather than what runs at the same time, as the quotas of
// registries are requests per second, and an answer may take any time. Each
// refusal halves the rate, at most once for what was sent before; each success
// raises it a little. Who has to wait is served by priority, and within that in
// order. It is safe for concurrent use, and has no goroutine.
type limiter struct {
	place string  // for errors
	most  float64 // requests per second that are known to be allowed; 0 for unknown

	mu    sync.Mutex // guards what follows
	rate  float64    // requests per second; 0 for no limit
	top   float64    // the rate that was last refused
	next  time.Time  // before which it is nobody's turn
	cut   time.Time  // when the rate was last lowered
	last  refusal
	stays int       // refusals in a row that the lowest rate did not help against
	shut  time.Time // until when nobody may wait, as there is nothing to wait for

	second      time.Time // when the current one of the following began
	sent        int       // requests in the current second
	sentEarlier int       // and in the one before

	waiting [priorities][]*waiter
	turns   int
	timer   *time.Timer // runs while somebody waits
}

// priority is who goes first.
type priority int

const (
	// manifests are few, and everything else of a pull waits for them.
	manifests priority = iota
	blobs
	// background is what no client waits for.
	background

	priorities
)

// waiter is a request whose turn has not come.
type waiter struct {
	turn chan struct{} // closed when it has, or will not come
	err  error         // why it will not come; set before turn is closed
}

// refusal is what an answer says about the requests being too many.
type refusal struct {
	err       error         // nil where it says nothing of the kind
	wait      time.Duration // what the place asked for, or 0
	throttled bool          // false where the place merely wants to be left alone
	exhausted bool          // a quota is used up that does not come back within seconds
}

const (
	// leastRate is as far as refusals lower a rate, in requests per second. What
	// needs more patience than that asks for it by Retry-After.
	leastRate = 2
	// climb is in how many seconds a rate grows by as much as was refused, until
	// it is near to that; probe is the same from there on. Beyond what is allowed
	// every request too many costs half of the rate.
	climb, near, probe = 20, 0.9, 200
	// leastGrowth is by how much a second without a refusal raises a rate at
	// least, in requests per second.
	leastGrowth = leastRate / 4.0
	// calm is how long after the last refusal the limit is lifted.
	calm = time.Minute
	// maxStays is how many refusals in a row at the lowest rate show that the
	// place refuses everything. Clients are then sent elsewhere for a while
	// rather than kept waiting.
	maxStays = 4
	shutFor  = 5 * time.Second
	// longestPause bounds how long one answer can have a place left alone.
	longestPause = time.Minute
	// knownMargin keeps requests that are sent in time from arriving too soon.
	knownMargin = 0.95
	// maxWaiting bounds those who wait at one place.
	maxWaiting = 1024
	// blobTurn is which turn in a row blobs get before manifests, so that a
	// stream of manifests cannot hold them up for ever.
	blobTurn = 4
	// timerSlack is how late a timer may be, where turns are as close as that.
	timerSlack = 10 * time.Millisecond
)

// newLimiter returns a limiter for a place that allows most requests per
// second, or 0 where nothing is known.
func newLimiter(place string, most float64) *limiter {
	most *= knownMargin
	return &limiter{place: place, most: most, rate: most, top: most}
}

// wait returns when it is the caller's turn to send a request, and the time to
// tell to learn. It fails at once where that would be after until.
func (l *limiter) wait(ctx context.Context, p priority, until time.Time) (sent time.Time, err error) {
	l.mu.Lock()
	now := time.Now()
	if l.freeLocked(now) {
		l.takeLocked(now)
		l.mu.Unlock()
		return now, nil
	}
	w, err := l.joinLocked(p, now, until)
	l.mu.Unlock()
	if err != nil {
		return time.Time{}, err
	}
	late := time.NewTimer(until.Sub(now))
	defer late.Stop()
	select {
	case <-w.turn:
		return time.Now(), w.err
	case <-late.C:
		return time.Time{}, l.leave(w)
	case <-ctx.Done():
		err := l.leave(w)
		if cause := context.Cause(ctx); !errors.Is(cause, errTimeout) {
			err = fmt.Errorf("wait for %s, which throttles: %w", l.place, cause)
		}
		return time.Time{}, err
	}
}

// take is wait for who would rather not send than wait.
func (l *limiter) take() (sent time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.freeLocked(now) {
		return time.Time{}, l.errorLocked(max(l.next.Sub(now), l.shut.Sub(now), 0))
	}
	l.takeLocked(now)
	return now, nil
}

// freeLocked reports whether a request may be sent now.
func (l *limiter) freeLocked(now time.Time) bool {
	if l.rate > 0 && l.most == 0 && now.Sub(l.cut) > calm {
		l.rate, l.stays = 0, 0
	}
	return !now.Before(l.next) && !now.Before(l.shut) && l.waitersLocked() == 0
}

// takeLocked uses up a turn.
func (l *limiter) takeLocked(now time.Time) {
	if now.Sub(l.second) >= time.Second {
		l.sentEarlier = l.sent
		if now.Sub(l.second) >= 2*time.Second {
			l.sentEarlier = 0
		}
		l.second, l.sent = now, 0
	}
	l.sent++
	if l.rate == 0 {
		return
	}
	gap := l.gapLocked()
	from := now
	if gap < timerSlack && now.Sub(l.next) < timerSlack {
		from = l.next // or late timers would add up
	}
	l.next = from.Add(gap)
}

// gapLocked is the time between two turns.
func (l *limiter) gapLocked() time.Duration {
	if l.rate == 0 {
		return 0
	}
	return time.Duration(float64(time.Second) / l.rate)
}

func (l *limiter) waitersLocked() int {
	n := 0
	for _, q := range l.waiting {
		n += len(q)
	}
	return n
}

// joinLocked puts a request at the end of its queue, unless it would wait there
// in vain.
func (l *limiter) joinLocked(p priority, now, until time.Time) (*waiter, error) {
	ahead := 0
	for _, q := range l.waiting[:p+1] {
		ahead += len(q)
	}
	turn := l.next.Add(time.Duration(ahead) * l.gapLocked())
	switch {
	case now.Before(l.shut):
		return nil, l.errorLocked(l.shut.Sub(now))
	case turn.After(until), l.waitersLocked() >= maxWaiting:
		return nil, l.errorLocked(turn.Sub(now))
	}
	w := &waiter{turn: make(chan struct{})}
	l.waiting[p] = append(l.waiting[p], w)
	l.armLocked(now)
	return w, nil
}

// leave takes a request out of its queue, and returns why it has waited in vain.
func (l *limiter) leave(w *waiter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.waiting {
		l.waiting[p] = slices.DeleteFunc(l.waiting[p], func(other *waiter) bool { return other == w })
	}
	return l.errorLocked(max(time.Until(l.next), l.gapLocked()))
}

// armLocked sets the timer for the next turn.
func (l *limiter) armLocked(now time.Time) {
	switch {
	case l.waitersLocked() == 0:
		return // at most it finds nobody
	case l.timer == nil:
		l.timer = time.AfterFunc(l.next.Sub(now), l.grant)
	default:
		l.timer.Reset(l.next.Sub(now))
	}
}

// grant gives their turns to those whose time has come.
func (l *limiter) grant() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for !now.Before(l.next) {
		w := l.popLocked()
		if w == nil {
			return
		}
		l.takeLocked(now)
		close(w.turn)
	}
	l.armLocked(now)
}

// popLocked takes the one whose turn it is out of its queue.
func (l *limiter) popLocked() *waiter {
	order := [...]priority{manifests, blobs, background}
	if l.turns++; l.turns%blobTurn == 0 {
		order = [...]priority{blobs, manifests, background}
	}
	for _, p := range order {
		if q := l.waiting[p]; len(q) > 0 {
			first := q[0]
			l.waiting[p] = slices.Delete(q, 0, 1)
			return first
		}
	}
	return nil
}

// refund gives back the turn of a request that did not count, as it was not let
// in, where turns are as rare as what is known to be allowed.
func (l *limiter) refund() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.most > 0 {
		l.next = l.next.Add(-l.gapLocked())
		l.armLocked(time.Now())
	}
}

// learn draws the consequence of an answer to a request that was sent then.
func (l *limiter) learn(sent time.Time, r refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if r.err == nil {
		l.raiseLocked()
		return
	}
	l.last = r
	if r.wait > 0 {
		l.pauseLocked(now.Add(min(r.wait, longestPause)))
	}
	if r.exhausted {
		l.shutLocked(now, longestPause)
	}
	if r.throttled && sent.After(l.cut) {
		l.lowerLocked(now)
	}
	l.armLocked(now)
}

// raiseLocked lets the rate grow with each success: there are about as many in
// a second as the rate is.
func (l *limiter) raiseLocked() {
	l.stays = 0
	if l.rate == 0 {
		return
	}
	growth := l.top / climb
	if l.rate > near*l.top {
		growth = l.top / probe
	}
	l.rate += max(growth, leastGrowth) / l.rate
	if l.most > 0 {
		l.rate = min(l.rate, l.most)
	}
}

// lowerLocked halves the rate, which is what was sent in the last second if
// there was no limit.
func (l *limiter) lowerLocked(now time.Time) {
	from := l.rate
	if from == 0 {
		from = float64(max(l.sent, l.sentEarlier))
	}
	least := float64(leastRate)
	if l.most > 0 {
		least = min(least, l.most/2)
	}
	if l.rate > 0 && l.rate <= least {
		if l.stays++; l.stays >= maxStays {
			l.shutLocked(now, shutFor)
		}
	}
	l.rate = max(from/2, least)
	l.top, l.cut = from, now
	l.pauseLocked(now.Add(l.gapLocked()))
}

func (l *limiter) pauseLocked(until time.Time) {
	if until.After(l.next) {
		l.next = until
	}
}

// shutLocked sends everybody away for some time.
func (l *limiter) shutLocked(now time.Time, d time.Duration) {
	d = min(d, longestPause)
	l.shut = now.Add(d)
	err := l.errorLocked(d)
	for p, q := range l.waiting {
		for _, w := range q {
			w.err = err
			close(w.turn)
		}
		l.waiting[p] = nil
	}
}

func (l *limiter) errorLocked(d time.Duration) error {
	return &throttledError{place: l.place, wait: d, most: l.most, cause: l.last.err}
}

// throttledError is a request that was not sent, as the place where it would go
// gets or allows no more. It unwraps to the answer by which that is known.
type throttledError struct {
	place string
	wait  time.Duration
	most  float64 // per second; 0 for unknown
	cause error   // may be nil
}

func (e *throttledError) Error() string {
	text := fmt.Sprintf("%s is not asked for another %v", e.place, e.wait.Round(time.Millisecond))
	switch {
	case e.cause != nil:
		text += ", as it gets too many requests: " + e.cause.Error()
	case e.most > 0:
		text += fmt.Sprintf(", as it allows no more than %.2g pulls a second", e.most/knownMargin)
	}
	return text
}

func (e *throttledError) Unwrap() error { return e.cause }

// Throttled is true.
func (e *throttledError) Throttled() bool { return true }

// RetryAfter is when to try again at the earliest.
func (e *throttledError) RetryAfter() time.Duration { return e.wait }
