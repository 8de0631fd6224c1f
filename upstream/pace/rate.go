package pace

import (
	"time"
)

// rate is how many requests a second one target gets. Each refusal halves it, at
// most once for requests that were sent before; each success raises it a little. It is not
// safe for concurrent use.
type rate struct {
	known   float64   // requests per second that are known to be allowed; 0 if unknown
	current float64   // requests per second; 0 for no limit
	refused float64   // the rate that was last refused
	lowered time.Time // when the rate was last lowered

	refusalsAtFloor int // refusals in a row at the lowest rate

	second      time.Time // when the current second of the following began
	sent        int       // requests in the current second
	sentEarlier int       // and in the one before
}

const (
	// floor is the lowest rate that refusals lead to, in requests per second. A
	// target that needs a longer pause asks for it by Retry-After.
	floor = 2
	// growth is in how many seconds a rate grows by as much as was refused, until it
	// is nearTop of that; probeInterval is the same from there on. Above what is
	// allowed, every request too many costs half of the rate.
	growth, nearTop, probeInterval = 20, 0.9, 200
	// leastGrowth is by how much a second without a refusal raises a rate at
	// least, in requests per second.
	leastGrowth = floor / 4.0
	// calm is how long after the last refusal the limit is lifted.
	calm = time.Minute
	// maxRefusalsAtFloor is how many refusals in a row at the lowest rate show that
	// the target refuses everything.
	maxRefusalsAtFloor = 4
	// knownMargin keeps requests that are sent in time from arriving too soon.
	knownMargin = 0.95
)

// newRate returns the rate for a target that allows most requests per second, or
// 0 if that is unknown.
func newRate(most float64) rate {
	most *= knownMargin
	return rate{known: most, current: most, refused: most}
}

// gap returns the time between two requests.
func (r *rate) gap() time.Duration {
	if r.current == 0 {
		return 0
	}
	return time.Duration(float64(time.Second) / r.current)
}

// limit returns the rate if refusals lowered it, and 0 if they did not or the
// limit is lifted by the next request.
func (r *rate) limit(now time.Time) float64 {
	if r.current == r.known || r.isCalm(now) {
		return 0
	}
	return r.current
}

func (r *rate) isCalm(now time.Time) bool { return r.known == 0 && now.Sub(r.lowered) > calm }

// lift ends the limit when the last refusal is long ago.
func (r *rate) lift(now time.Time) {
	if r.current > 0 && r.isCalm(now) {
		r.current, r.refusalsAtFloor = 0, 0
	}
}

// count counts a request that is sent now.
func (r *rate) count(now time.Time) {
	if now.Sub(r.second) >= time.Second {
		r.sentEarlier = r.sent
		if now.Sub(r.second) >= 2*time.Second {
			r.sentEarlier = 0
		}
		r.second, r.sent = now, 0
	}
	r.sent++
}

// raise lets the rate grow with each success: there are about as many in a second
// as the rate is.
func (r *rate) raise() {
	r.refusalsAtFloor = 0
	if r.current == 0 {
		return
	}
	seconds := float64(growth)
	if r.current > nearTop*r.refused {
		seconds = probeInterval
	}
	r.current += max(r.refused/seconds, leastGrowth) / r.current
	if r.known > 0 {
		r.current = min(r.current, r.known)
	}
}

// lower halves the rate; without a limit, that is the number of requests in the
// last second. It reports whether the target refuses everything.
func (r *rate) lower(now time.Time) (refusesAll bool) {
	from := r.current
	if from == 0 {
		from = float64(max(r.sent, r.sentEarlier))
	}
	least := float64(floor)
	if r.known > 0 {
		least = min(least, r.known/2)
	}
	if r.current > 0 && r.current <= least {
		r.refusalsAtFloor++
		refusesAll = r.refusalsAtFloor >= maxRefusalsAtFloor
	}
	r.current = max(from/2, least)
	r.refused, r.lowered = from, now
	return refusesAll
}
