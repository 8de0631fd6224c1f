package frontend

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// Frontend is the entrance that all faces of one registry share. Its methods may be called by
// several goroutines at once.
type Frontend struct {
	now     func() time.Time
	latency atomic.Int64 // a time.Duration
	faults  faults
	limits  limits
	counts  requestCounts
}

// New returns a frontend without faults and limits. now is the clock of limits and
// of the Date of answers.
func New(now func() time.Time) *Frontend { return &Frontend{now: now} }

// Subject describes a request, as far as that is known before it is answered.
type Subject struct {
	Op        Op
	Content   digest.Digest // of a blob or manifest
	Operation string        // of an API
}

// Serve counts a request, lets a fault act on it, and answers it: by answer, or, if
// the request is to fail, by fail in the form of the face's protocol.
func (f *Frontend) Serve(w http.ResponseWriter, r *http.Request, of Subject, fail func(*Exchange, Error), answer func(*Exchange)) {
	f.counts.add(of.Op, r.Method)
	x := &Exchange{ResponseWriter: w, Request: r}
	x.fault, x.removed = f.faults.next(of)
	x.Pause(time.Duration(f.latency.Load()))
	if x.fault.Notify != nil {
		x.fault.Notify()
	}
	x.Pause(x.fault.Delay)
	if x.fault.Hang {
		x.awaitRemoval()
	}
	if x.fault.Refuse {
		panic(http.ErrAbortHandler)
	}
	now := f.now()
	x.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	e, failed := x.fault.error(of.Op)
	if !failed && !f.limits.allow(of.Op, now) {
		e, failed = Throttled(of.Op), true
	}
	switch {
	case failed:
		fail(x, e)
	case x.fault.Status != 0:
		x.Reply(x.fault.Status, "text/plain; charset=utf-8", []byte(x.fault.Body))
	default:
		answer(x)
	}
}

// SetLatency makes later requests wait before they are answered.
func (f *Frontend) SetLatency(d time.Duration) { f.latency.Store(int64(d)) }

// Inject makes a fault act from now on. remove ends it, and lets the requests that
// hang and the bodies that stall go on; it may be called more than once. At most one
// fault acts on a request: of those that match and are not used up, the one that was
// injected first.
func (f *Frontend) Inject(fault Fault) (remove func()) { return f.faults.inject(fault) }

// SetRateLimit throttles requests of the kinds on, counted together, above perSecond
// by the clock. burst requests, at least one, may come at once. It replaces the
// limit of the same kinds; 0 per second removes it.
func (f *Frontend) SetRateLimit(on Op, perSecond float64, burst int) {
	f.limits.set(on, perSecond, burst)
}

// Requests returns how many requests of each single kind arrived since the last
// reset, and how many of them were HEAD.
func (f *Frontend) Requests() (requests, heads map[Op]int) { return f.counts.clone() }

// Exceeded returns how many requests since the last reset were above a limit.
func (f *Frontend) Exceeded() int { return f.limits.count() }

// ResetCounts sets all counts to zero.
func (f *Frontend) ResetCounts() {
	f.counts.reset()
	f.limits.reset()
}
