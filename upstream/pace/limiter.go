package pace

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/larder-registry/larder/upstream/reply"
)

// Limiter spaces the requests to one target once the target has said that they
// are too many. Until then every request is sent at once.
//
// It limits the rate rather than the number of concurrent requests, as the quotas
// of registries are requests per second, and an answer may take any time. Waiting
// requests are served by priority, and within one priority in order. It is safe
// for concurrent use, and has no goroutine.
type Limiter struct {
	target string // for errors

	mu     sync.Mutex // guards what follows
	rate   rate
	next   time.Time // the next turn at the earliest
	closed time.Time // until when requests fail at once instead of waiting
	last   Refusal
	queue  queue
	timer  *time.Timer // runs while a request waits
}

// Refusal is an answer because of too many requests.
type Refusal struct {
	// Err is the answer. It becomes the cause of the errors of Wait and Try.
	Err error
	// Wait is how long the target asked to be left alone, or 0.
	Wait time.Duration
	// Throttled is false if the target wants to be left alone for another reason
	// than too many requests.
	Throttled bool
	// Exhausted means that a quota is used up which does not come back within
	// seconds.
	Exhausted bool
	// Busy means that one server has too much to do at the moment (S3's SlowDown), and not
	// that a quota is used up.
	Busy bool
	// Tries is how many times the same request was refused before.
	Tries int
}

// pause returns how long the refused request waits before its next turn.
func (r Refusal) pause() time.Duration {
	mean := retryPause << min(r.Tries, 1) // longer pauses would use up the client's time with few tries
	if r.Busy {
		mean = busyPause << min(r.Tries, busyDoublings)
	}
	return mean/2 + rand.N(mean)
}

const (
	// retryPause is the mean wait of a refused request before it is sent again while there
	// is no limit: as long as a turn at the floor.
	retryPause = 200 * time.Millisecond
	// busyPause is that wait after a server was busy. It doubles with each try: three refusals
	// cost 0.2 s at most, and one request alone is seldom refused often enough to set a limit.
	busyPause     = 16 * time.Millisecond
	busyDoublings = 6
	// longestPause bounds how long one answer can have a target left alone.
	longestPause = time.Minute
	// maxWaiting bounds the requests that wait for one target.
	maxWaiting = 1024
	// timerSlack is how late a timer may be. It matters where turns are as close as
	// that.
	timerSlack = 10 * time.Millisecond
)

// NewLimiter returns a limiter for a target that allows most requests per second,
// or 0 if that is unknown. Errors name the target.
func NewLimiter(target string, most float64) *Limiter {
	return &Limiter{target: target, rate: newRate(most)}
}

// HasQuota reports whether the target's limit is known beforehand.
func (l *Limiter) HasQuota() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rate.known > 0
}

// Wait returns when the caller may send a request, and that time for Refused. p is the
// priority while a client waits, else it is Unattended: see [BackgroundUntil]. If the turn would come after until, it fails at once. The error of a request that
// is not sent is Throttled() and has RetryAfter(); if ctx ends for another reason
// than [reply.ErrTimeout], it is the cause of that.
func (l *Limiter) Wait(ctx context.Context, p Priority, until time.Time) (sent time.Time, err error) {
	l.mu.Lock()
	now := time.Now()
	if l.freeLocked(now) {
		l.sendLocked(now)
		l.mu.Unlock()
		return now, nil
	}
	attended, background := BackgroundOf(ctx)
	first := p
	if background {
		first = Unattended
	}
	w, err := l.joinLocked(first, now, until)
	l.mu.Unlock()
	if err != nil {
		return time.Time{}, err
	}
	late := time.NewTimer(until.Sub(now))
	defer late.Stop()
	for {
		select {
		case <-w.turn:
			return time.Now(), w.err
		case <-attended:
			l.move(w, p)
			attended = nil
		case <-late.C:
			return time.Time{}, l.leave(w)
		case <-ctx.Done():
			err := l.leave(w)
			if reply.CallerLeft(ctx) {
				err = fmt.Errorf("wait for %s, which throttles: %w", l.target, context.Cause(ctx))
			}
			return time.Time{}, err
		}
	}
}

// Try is Wait for a request that is not worth waiting for: it fails at once if it
// is not its turn.
func (l *Limiter) Try() (sent time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !l.freeLocked(now) {
		return time.Time{}, l.errorLocked(max(l.next.Sub(now), l.closed.Sub(now), 0))
	}
	l.sendLocked(now)
	return now, nil
}

// Succeeded reports an answer that was not about too many requests.
func (l *Limiter) Succeeded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate.raise()
}

// Refused reports the refusal of a request that was sent at that time. It returns how long
// this request should wait before it asks for its next turn: some time if the refusal says
// nothing about a rate, so that only this request is held back.
func (l *Limiter) Refused(sent time.Time, r Refusal) (pause time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.last = r
	if r.Wait > 0 {
		l.pauseLocked(now.Add(min(r.Wait, longestPause)))
	}
	if r.Exhausted {
		l.closeLocked(now, longestPause)
	}
	isLimit := r.Throttled && (l.rate.refuse(now) || r.Wait > 0)
	switch {
	case isLimit && sent.After(l.rate.lowered):
		l.rate.lower(now)
		l.pauseLocked(now.Add(l.rate.gap()))
	case r.Throttled && !isLimit:
		pause = r.pause()
	}
	l.armLocked(now)
	return pause
}

// Refund gives back the turn of a request that the target did not count, as it
// refused the credentials. It changes nothing for a target without a known limit.
func (l *Limiter) Refund() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate.known > 0 {
		l.next = l.next.Add(-l.rate.gap())
		l.armLocked(time.Now())
	}
}

// Backlog is how a limiter holds requests back.
type Backlog struct {
	// Rate is the limit in requests per second, or 0 if refusals have set none.
	Rate float64
	// Waiting is the number of requests whose turn has not come.
	Waiting int
	// PausedUntil is when the next request is sent at the earliest, or zero if the
	// target is not left alone.
	PausedUntil time.Time
}

// Backlog returns how the limiter holds requests back now.
func (l *Limiter) Backlog() Backlog {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	b := Backlog{Rate: l.rate.limit(now), Waiting: l.queue.len()}
	until := l.closed
	if l.last.Wait > 0 && l.next.After(until) {
		until = l.next
	}
	if until.After(now) {
		b.PausedUntil = until
	}
	return b
}

// freeLocked reports whether a request may be sent now.
func (l *Limiter) freeLocked(now time.Time) bool {
	l.rate.lift(now)
	return !now.Before(l.next) && !now.Before(l.closed) && l.queue.len() == 0
}

// sendLocked counts a request that is sent now, and sets the next turn.
func (l *Limiter) sendLocked(now time.Time) {
	l.rate.count(now)
	gap := l.rate.gap()
	if gap == 0 {
		return
	}
	from := now
	if gap < timerSlack && now.Sub(l.next) < timerSlack {
		from = l.next // or the delays of late timers would add up
	}
	l.next = from.Add(gap)
}

// joinLocked puts a request at the end of its queue, unless it would wait there
// in vain.
func (l *Limiter) joinLocked(p Priority, now, until time.Time) (*waiter, error) {
	turn := l.next.Add(time.Duration(l.queue.ahead(p)) * l.rate.gap())
	switch {
	case now.Before(l.closed):
		return nil, l.errorLocked(l.closed.Sub(now))
	case turn.After(until), l.queue.len() >= maxWaiting:
		return nil, l.errorLocked(turn.Sub(now))
	}
	w := &waiter{turn: make(chan struct{})}
	l.queue.push(p, w)
	l.armLocked(now)
	return w, nil
}

// move puts a request that waits at the end of another queue.
func (l *Limiter) move(w *waiter, to Priority) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue.remove(w) {
		l.queue.push(to, w)
	}
}

// leave takes a request out of its queue, and returns why it waited in vain.
func (l *Limiter) leave(w *waiter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue.remove(w)
	return l.errorLocked(max(time.Until(l.next), l.rate.gap()))
}

// armLocked sets the timer for the next turn.
func (l *Limiter) armLocked(now time.Time) {
	switch {
	case l.queue.len() == 0:
		return // a timer that runs finds no waiter
	case l.timer == nil:
		l.timer = time.AfterFunc(l.next.Sub(now), l.grant)
	default:
		l.timer.Reset(l.next.Sub(now))
	}
}

// grant gives their turns to the requests whose time has come.
func (l *Limiter) grant() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for !now.Before(l.next) {
		w := l.queue.pop()
		if w == nil {
			return
		}
		l.sendLocked(now)
		close(w.turn)
	}
	l.armLocked(now)
}

func (l *Limiter) pauseLocked(until time.Time) {
	if until.After(l.next) {
		l.next = until
	}
}

// closeLocked sends every request away for some time.
func (l *Limiter) closeLocked(now time.Time, d time.Duration) {
	l.closed = now.Add(d)
	l.queue.failAll(l.errorLocked(d))
}

func (l *Limiter) errorLocked(d time.Duration) error {
	return &throttledError{target: l.target, wait: d, known: l.rate.known, cause: l.last.Err}
}

// throttledError is a request that was not sent, as its target throttles. It
// unwraps to the refusal.
type throttledError struct {
	target string
	wait   time.Duration
	known  float64 // requests per second that are known to be allowed; 0 if unknown
	cause  error   // may be nil
}

func (e *throttledError) Error() string {
	text := fmt.Sprintf("%s is not asked for another %v", e.target, e.wait.Round(time.Millisecond))
	switch {
	case e.cause != nil:
		text += ", as it gets too many requests: " + e.cause.Error()
	case e.known > 0:
		text += fmt.Sprintf(", as it allows no more than %.2g pulls a second", e.known/knownMargin)
	}
	return text
}

func (e *throttledError) Unwrap() error { return e.cause }

// Throttled is true.
func (e *throttledError) Throttled() bool { return true }

// RetryAfter returns how long to wait before the next attempt.
func (e *throttledError) RetryAfter() time.Duration { return e.wait }
