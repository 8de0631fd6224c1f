package upstream

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	lru "github.com/hashicorp/golang-lru/v2"
)

// limits has a limiter for each place that is asked. They are as the quotas of
// ECR are: one for an account in a region, whichever of its names is used, and
// one for each storage host. It is safe for concurrent use.
type limits struct {
	places *lru.Cache[string, *limiter]
}

func newLimits() *limits {
	places, _ := lru.New[string, *limiter](4 * maxRegistries) // fails only for a size that is not positive
	return &limits{places}
}

// of returns the limiter with this key, for a host that is known to allow most
// requests a second, or 0 where nothing is known.
func (l *limits) of(key, host string, most float64) *limiter {
	if known, ok := l.places.Get(key); ok {
		return known
	}
	fresh := newLimiter(host, most)
	if known, ok, _ := l.places.PeekOrAdd(key, fresh); ok {
		return known
	}
	return fresh
}

// The rates at which ECR Public lets images be pulled, per second (AWS General
// Reference, "Amazon ECR Public endpoints and quotas").
const (
	publicPulls          = 10
	publicPullsAnonymous = 1
)

// pace sets the limiters of a registry. A pull is the GET of a manifest, for
// those registries that count pulls.
func (r *Registry) pace(all *limits) {
	key := r.host
	host, isECR := ParseECRHost(r.host)
	switch {
	case host.Public:
		key = "ECR Public"
	case isECR:
		key = host.Account + " in " + host.Region
	}
	r.limits, r.requests = all, all.of(key, r.host, 0)
	switch {
	case host.Public:
		r.pulls = all.of("pulls from "+key, r.host, publicPulls)
		r.anonymousPulls = all.of("anonymous pulls from "+key, r.host, publicPullsAnonymous)
	case r.host == dockerHub:
		r.pulls = all.of("pulls from "+key, r.host, 0)
		r.anonymousPulls = r.pulls
	}
}

// dockerHub is the name by which clients call Docker Hub.
const dockerHub = "docker.io"

// limiterOf returns whose turn a request to the registry itself needs.
func (r *Registry) limiterOf(ctx context.Context, req request) *limiter {
	switch {
	case r.pulls == nil, !strings.HasPrefix(req.path, "manifests/"):
		return r.requests
	case req.method == http.MethodHead && r.pulls.most > 0:
		return r.requests
	}
	// Where a quota may be used up, HEAD hears of it too: layers must not suffer.
	if r.pulls == r.anonymousPulls {
		return r.pulls
	}
	if a, ok := r.auth.(interface{ anonymous(context.Context) bool }); ok && a.anonymous(ctx) {
		return r.anonymousPulls
	}
	return r.pulls
}

// paced sends a request when it is its turn, and again where the answer is that
// there are too many, for half of the time that a client waits: an answer takes
// its time too, and the client needs to hear before it gives up. A spare one is
// not sent rather than wait. An answer that it returns is not about too many
// requests.
func (r *Registry) paced(ctx context.Context, l *limiter, req request, send func() (*http.Response, error)) (*http.Response, error) {
	until := time.Now().Add(r.timeout / 2)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	for {
		var sent time.Time
		var err error
		if req.spare {
			sent, err = l.take()
		} else {
			sent, err = l.wait(ctx, priorityOf(ctx, req.priority), until)
		}
		if err != nil {
			r.calls.kept(err)
			return nil, err
		}
		resp, err := send()
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
			if suspicious(resp) {
				l.refund()
			}
			l.learn(sent, refusal{})
			return resp, nil
		}
		exhausted := isExhausted(resp.Header)
		answer := errorFrom(resp)
		exhausted = exhausted || strings.Contains(answer.Detail.Message, "Data limit exceeded") // ECR Public, by month
		throttled := answer.Throttled()
		if throttled {
			r.calls.throttled()
		}
		if throttled || answer.Wait > 0 {
			l.learn(sent, refusal{err: answer, wait: answer.Wait, throttled: throttled, exhausted: exhausted})
		}
		if !throttled || req.spare {
			return nil, answer
		}
	}
}

// isExhausted reads Docker Hub's header about what is left of a quota and in
// how many seconds' window, such as "0;w=21600" (Docker's page "Pull usage and
// limits").
func isExhausted(h http.Header) bool {
	left, window, ok := strings.Cut(h.Get("RateLimit-Remaining"), ";w=")
	return ok && strings.TrimSpace(left) == "0" && len(window) > 2 // 100 seconds and more
}

// backgroundKey marks a context in [Background].
type backgroundKey struct{}

// Background returns a context for requests that no client waits for. While
// their upstream throttles, those that clients wait for go first.
func Background(ctx context.Context) context.Context {
	return context.WithValue(ctx, backgroundKey{}, true)
}

func priorityOf(ctx context.Context, p priority) priority {
	if ctx.Value(backgroundKey{}) != nil {
		return background
	}
	return p
}

// apiRefusal reads what a call of an AWS API says about too many requests.
// A 429 counts without one of the SDK's codes, too: an endpoint or a proxy in
// between may have sent it.
func apiRefusal(err error) refusal {
	codes := retry.ThrottleErrorCode{Codes: retry.DefaultThrottleErrorCodes}
	var answer *awshttp.ResponseError
	tooMany := errors.As(err, &answer) && answer.HTTPStatusCode() == http.StatusTooManyRequests
	if !tooMany && codes.IsErrorThrottle(err) != aws.TrueTernary {
		return refusal{}
	}
	return refusal{err: err, throttled: true}
}
