package pace

import (
	"time"
)

// rate is how many requests a second one target gets. A refusal halves it, at most once for
// the requests that were sent before; each success raises it a little. Without a limit, a few
// refusals among many answers lower nothing: they say nothing about a rate. It is not safe for
// concurrent use.
type rate struct {
	known   float64   // requests per second that are known to be allowed; 0 if unknown
	current float64   // requests per second; 0 for no limit
	refused float64   // the rate that was last refused
	lowered time.Time // when the rate was last lowered

	streak int // refusals in a row at the floor

	second  time.Time // when the current second of the following began
	now     answers   // of the current second
	earlier answers   // and of the one before
}

// answers counts the requests of a second and what became of them.
type answers struct{ sent, refused int }

const (
	// floor is the lowest rate that refusals lead to, in requests per second. It sinks to
	// sinking in a long streak, for fleets: a thousand nodes that share a quota must leave
	// each other room. A target that needs a longer pause asks for it by Retry-After.
	//
	// The floor is what keeps pulls going while others use up the quota: with 90 of 100
	// answers refused, a floor of 5 finishes 8 images of ECR for 32 clients in about 105 s; at a
	// floor of 2, clients that gave up meanwhile never finished.
	floor = 5 * knownMargin
	// longStreak is how many refusals in a row at the floor lower it by one step. It is so long that
	// a target that refuses 9 of 10 requests by chance reaches it once in 500 tries.
	longStreak = 60
	// growth is in how many seconds a rate grows by as much as was refused, until it
	// is nearTop of that; probeInterval is the same from there on. Above what is
	// allowed, every request too many costs half of the rate.
	growth, nearTop, probeInterval = 20, 0.9, 200
	// leastGrowth is by how much a second without a refusal raises a rate at
	// least, in requests per second.
	leastGrowth = 0.25
	// calm is how long after the last refusal the limit is lifted.
	calm = time.Minute
	// leastRefusals and leastShare are how many refusals within one to two seconds, and which
	// part of the requests, set a limit if there is none. S3 answers 503 to a few requests now
	// and then; and while others use up half of a quota, a request that is sent again soon
	// gets through.
	leastRefusals, leastShare = 8, 0.7
	// knownMargin keeps requests that are sent in time from arriving too soon.
	knownMargin = 0.95
)

// sinking are the floors after one long streak, and after two or more, in requests per second.
var sinking = [...]float64{2 * knownMargin, 1 * knownMargin}

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
		r.current, r.streak = 0, 0
	}
}

// count counts a request that is sent now.
func (r *rate) count(now time.Time) {
	r.turn(now)
	r.now.sent++
}

// turn begins the counting of another second, if it is time for that.
func (r *rate) turn(now time.Time) {
	since := now.Sub(r.second)
	if since < time.Second {
		return
	}
	r.earlier = r.now
	if since >= 2*time.Second {
		r.earlier = answers{}
	}
	r.second, r.now = now, answers{}
}

// raise lets the rate grow with each success: there are about as many in a second
// as the rate is.
func (r *rate) raise() {
	r.streak = 0
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

// refuse counts a refusal. It reports whether that says anything about a rate: always if there
// is a limit, and else if there were many, and not few among many answers.
func (r *rate) refuse(now time.Time) (isLimit bool) {
	r.turn(now)
	r.now.refused++
	if r.current > 0 {
		return true
	}
	refused, sent := r.now.refused+r.earlier.refused, r.now.sent+r.earlier.sent
	return refused >= leastRefusals && float64(refused) >= leastShare*float64(sent)
}

// lower halves the rate; without a limit, that is the number of requests in the
// last second.
func (r *rate) lower(now time.Time) {
	from := r.current
	if from == 0 {
		from = float64(max(r.now.sent, r.earlier.sent))
	}
	if r.current > 0 && r.current <= r.lowest() {
		r.streak++
	}
	r.current = max(from/2, r.lowest())
	r.refused, r.lowered = from, now
}

// lowest is the floor at the moment.
func (r *rate) lowest() float64 {
	lowest := float64(floor)
	if steps := r.streak / longStreak; steps > 0 {
		lowest = sinking[min(steps, len(sinking))-1]
	}
	if r.known > 0 {
		lowest = min(lowest, r.known/2)
	}
	return lowest
}
