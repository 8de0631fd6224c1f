package upstream

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
	"github.com/larder-registry/larder/upstream/telemetry"
)

// The rates at which ECR Public lets images be pulled, per second (AWS General
// Reference, "Amazon ECR Public endpoints and quotas").
const (
	publicPulls          = 10
	publicPullsAnonymous = 1
)

// throttle sends the requests of one site in their turn. Limits follow ECR's
// quotas: one for each API action of an account in a region, whichever of its names
// is used, and one for each storage host. It is safe for concurrent use.
type throttle struct {
	all      *pace.Limits
	requests *pace.Limiter
	// layers replaces requests for blobs at ECR, which counts GetDownloadUrlForLayer and
	// BatchGetImage separately. It is nil at other registries.
	layers *pace.Limiter
	// pulls and anonymousPulls replace requests for GETs of manifests at registries
	// that count pulls. They are nil at others, and equal at Docker Hub.
	pulls, anonymousPulls *pace.Limiter

	timeout time.Duration // of the site
	counter *telemetry.Upstream
}

func newThrottle(host string, all *pace.Limits, timeout time.Duration, counter *telemetry.Upstream) *throttle {
	key := host
	parsed, isECR := name.ParseECR(host)
	switch {
	case parsed.Public:
		key = "ECR Public"
	case isECR:
		key = parsed.Account + " in " + parsed.Region
	}
	t := &throttle{all: all, requests: all.Of(key, host, 0), timeout: timeout, counter: counter}
	if isECR && !parsed.Public {
		t.layers = all.Of("layers of "+key, host, 0)
	}
	switch {
	case parsed.Public:
		t.pulls = all.Of("pulls from "+key, host, publicPulls)
		t.anonymousPulls = all.Of("anonymous pulls from "+key, host, publicPullsAnonymous)
	case host == name.DockerHub:
		t.pulls = all.Of("pulls from "+key, host, 0)
		t.anonymousPulls = t.pulls
	}
	return t
}

// limiter returns the limiter for a request to the registry itself.
func (t *throttle) limiter(req request, anonymous func() bool) *pace.Limiter {
	switch {
	case t.layers != nil && strings.HasPrefix(req.path, "blobs/"):
		return t.layers
	case t.pulls == nil, !strings.HasPrefix(req.path, "manifests/"):
		return t.requests
	case req.method == http.MethodHead && t.pulls.HasQuota():
		return t.requests
	case t.pulls == t.anonymousPulls:
		return t.pulls // HEAD fails too once the quota is used up; layers must not
	case anonymous():
		return t.anonymousPulls
	}
	return t.pulls
}

// storage returns the limiter for a host that the registry redirects to.
func (t *throttle) storage(host string) *pace.Limiter { return t.all.Of(host, host, 0) }

// limiters returns the limiters for the registry itself.
func (t *throttle) limiters() []*pace.Limiter {
	all := []*pace.Limiter{t.requests}
	for _, l := range []*pace.Limiter{t.layers, t.pulls, t.anonymousPulls} {
		if l != nil && !slices.Contains(all, l) {
			all = append(all, l)
		}
	}
	return all
}

// do sends a request in its turn, and again if the answer is that there are too
// many. It never returns such an answer as a response. It takes half of the site's
// timeout at most, so that there is time left for the answer and for the client to
// hear of a failure. A spare request fails instead of waiting.
func (t *throttle) do(ctx context.Context, l *pace.Limiter, req request, send func() (*http.Response, error)) (*http.Response, error) {
	until := time.Now().Add(t.timeout / 2)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	for try := 0; ; try++ {
		sent, err := turn(ctx, l, req, until)
		if err != nil {
			t.counter.Unsent(err)
			return nil, err
		}
		resp, err := send()
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
			if auth.IsRefusal(resp) {
				l.Refund()
			}
			l.Succeeded()
			return resp, nil
		}
		refusal, pause := t.refused(l, sent, try, resp)
		if !refusal.Throttled() || req.spare || time.Now().Add(pause).After(until) {
			return nil, refusal
		}
		if err := wait(ctx, pause); err != nil {
			return nil, refusal
		}
	}
}

// wait pauses for d or until the context ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// turn waits until a request may be sent.
func turn(ctx context.Context, l *pace.Limiter, req request, until time.Time) (time.Time, error) {
	if req.spare {
		return l.Try()
	}
	return l.Wait(ctx, req.priority, until)
}

// refused tells the limiter of an answer of 429 or 503. pause is how long the request waits
// before it asks for another turn. It was refused tries times before.
func (t *throttle) refused(l *pace.Limiter, sent time.Time, tries int, resp *http.Response) (refusal *reply.Error, pause time.Duration) {
	exhausted := pace.Exhausted(resp.Header)
	refusal = reply.Read(resp)
	exhausted = exhausted || strings.Contains(refusal.Detail.Message, "Data limit exceeded") // ECR Public, by month
	throttled := refusal.Throttled()
	if throttled {
		t.counter.Throttled()
	}
	if throttled || refusal.Wait > 0 {
		pause = l.Refused(sent, pace.Refusal{
			Err: refusal, Wait: refusal.Wait, Throttled: throttled, Exhausted: exhausted,
			Busy: refusal.Status == http.StatusServiceUnavailable, Tries: tries,
		})
	}
	return refusal, pause
}
