package link

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// class says whose turn comes first.
type class int

const (
	attended   class = iota // a client waits
	unattended              // none does
	classes
)

// share is how many turns in a row clients have at most while a body in the background waits:
// they get 95 % of the rate, and the rest keeps the other transfers alive.
const share = 19

// turnTime is how long the bytes of one turn take, and so how long a client waits at most for
// the end of a turn in the background. minTurn keeps turns from being more work than the bytes
// are worth, and maxTurn is what a body may hold without reading it, in bytes.
const (
	turnTime = 50 * time.Millisecond
	minTurn  = 4 << 10
	maxTurn  = 1 << 20
)

// errAgain ends a wait whose conditions have changed.
var errAgain = errors.New("the conditions of this turn have changed")

// queue lets bytes pass at a rate. When the rate allows for a turn, it is decided which body
// has it: a body that reads on at once is back by then. It is safe for concurrent use.
type queue struct {
	timer *time.Timer // runs grant when the rate allows for the next turn; stopped while none waits

	mu      sync.Mutex // guards what follows
	limiter *rate.Limiter
	size    int // of a turn, in bytes
	spare   int // bytes that are paid for, and were not used
	waiting [classes]turns
	passed  int // turns of clients in a row, while a body in the background waits
}

func newQueue() *queue {
	q := &queue{limiter: rate.NewLimiter(rate.Inf, maxTurn), size: maxTurn}
	q.timer = time.AfterFunc(math.MaxInt64, q.grant)
	q.timer.Stop()
	return q
}

// setRate changes the rate, in bytes per second; 0 means no bound. Bodies that wait are to
// have their conditions end: see conditions.changed.
func (q *queue) setRate(bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	limit, burst := rate.Inf, maxTurn
	q.size, q.spare = maxTurn, 0
	if bytes > 0 {
		limit = rate.Limit(bytes)
		inTime := int(float64(bytes) * turnTime.Seconds())
		q.size = min(max(inTime, minTurn), maxTurn)
		burst = max(inTime, 2*q.size) // timers are late by a millisecond or two
	}
	now := time.Now()
	q.limiter.SetBurstAt(now, burst)
	q.limiter.SetLimitAt(now, limit)
	q.grantLocked()
}

// conditions end a wait with errAgain when one of them is closed. Both may be nil.
type conditions struct {
	attended <-chan struct{} // a client waits from now on
	changed  <-chan struct{} // the rules are others
}

// pass waits for a turn of at most that many bytes, and returns how many it has. waited says
// that it did not return at once.
func (q *queue) pass(ctx context.Context, until conditions, c class, client string, most int) (n int, waited bool, err error) {
	t := &turn{client: client, most: most, begins: make(chan int, 1)}
	q.mu.Lock()
	q.waiting[c].add(t)
	q.grantLocked()
	q.mu.Unlock()
	select {
	case n := <-t.begins:
		return n, false, nil
	default:
	}
	select {
	case n := <-t.begins:
		return n, true, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-until.attended:
		err = errAgain
	case <-until.changed:
		err = errAgain
	}
	q.leave(c, t)
	return 0, true, err
}

// leave ends the wait for a turn.
func (q *queue) leave(c class, t *turn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.waiting[c].remove(t) {
		q.refundLocked(<-t.begins) // it began meanwhile
	}
	q.grantLocked()
}

func (q *queue) grant() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.grantLocked()
}

// grantLocked has turns begin while the rate allows for them, and sets the timer for the next
// one.
func (q *queue) grantLocked() {
	q.timer.Stop()
	for {
		c := q.nextLocked()
		t := q.waiting[c].first()
		if t == nil {
			return
		}
		n := min(q.size, t.most)
		fromSpare := min(n, q.spare)
		now := time.Now()
		if due := n - fromSpare; !q.limiter.AllowN(now, due) {
			missing := float64(due) - q.limiter.TokensAt(now)
			q.timer.Reset(time.Duration(missing/float64(q.limiter.Limit())*float64(time.Second)) + 1)
			return
		}
		q.spare -= fromSpare
		q.waiting[c].take()
		if q.passed++; c == unattended || q.waiting[unattended].first() == nil {
			q.passed = 0
		}
		t.begins <- n
	}
}

// nextLocked returns the class that has the next turn, if it wants one.
func (q *queue) nextLocked() class {
	if q.waiting[attended].first() == nil || q.passed >= share && q.waiting[unattended].first() != nil {
		return unattended
	}
	return attended
}

// refund takes back what was paid for and is not used, up to one turn.
func (q *queue) refund(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.refundLocked(n)
	q.grantLocked()
}

func (q *queue) refundLocked(n int) { q.spare = min(q.spare+n, q.size) }

// charge has the next turns pay for bytes that did not wait.
func (q *queue) charge(n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.limiter.Limit() == rate.Inf {
		return
	}
	now := time.Now()
	for burst := int64(q.limiter.Burst()); n > 0; n -= burst {
		q.limiter.ReserveN(now, int(min(n, burst)))
	}
}
