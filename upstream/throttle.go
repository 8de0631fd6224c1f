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

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// The rates at which ECR Public lets images be pulled, per second (AWS General
// Reference, "Amazon ECR Public endpoints and quotas").
const (
	publicPulls          = 10
	publicPullsAnonymous = 1
)

// pace sets the limiters of a registry. A pull is the GET of a manifest, for
// those registries that count pulls.
func (r *Registry) pace(all *pace.Limits) {
	key := r.host
	host, isECR := ParseECRHost(r.host)
	switch {
	case host.Public:
		key = "ECR Public"
	case isECR:
		key = host.Account + " in " + host.Region
	}
	r.limits, r.requests = all, all.Of(key, r.host, 0)
	switch {
	case host.Public:
		r.pulls = all.Of("pulls from "+key, r.host, publicPulls)
		r.anonymousPulls = all.Of("anonymous pulls from "+key, r.host, publicPullsAnonymous)
	case r.host == dockerHub:
		r.pulls = all.Of("pulls from "+key, r.host, 0)
		r.anonymousPulls = r.pulls
	}
}

// dockerHub is the name by which clients call Docker Hub.
const dockerHub = "docker.io"

// limiterOf returns whose turn a request to the registry itself needs.
func (r *Registry) limiterOf(ctx context.Context, req request) *pace.Limiter {
	switch {
	case r.pulls == nil, !strings.HasPrefix(req.path, "manifests/"):
		return r.requests
	case req.method == http.MethodHead && r.pulls.HasQuota():
		return r.requests
	}
	// Where a quota may be used up, HEAD hears of it too: layers must not suffer.
	if r.pulls == r.anonymousPulls {
		return r.pulls
	}
	if a, ok := r.auth.(interface{ Anonymous(context.Context) bool }); ok && a.Anonymous(ctx) {
		return r.anonymousPulls
	}
	return r.pulls
}

// paced sends a request when it is its turn, and again where the answer is that
// there are too many, for half of the time that a client waits: an answer takes
// its time too, and the client needs to hear before it gives up. A spare one is
// not sent rather than wait. An answer that it returns is not about too many
// requests.
func (r *Registry) paced(ctx context.Context, l *pace.Limiter, req request, send func() (*http.Response, error)) (*http.Response, error) {
	until := time.Now().Add(r.timeout / 2)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	for {
		var sent time.Time
		var err error
		if req.spare {
			sent, err = l.Try()
		} else {
			sent, err = l.Wait(ctx, pace.PriorityOf(ctx, req.priority), until)
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
			if auth.IsRefusal(resp) {
				l.Refund()
			}
			l.Succeeded()
			return resp, nil
		}
		exhausted := pace.Exhausted(resp.Header)
		refusal := reply.Read(resp)
		exhausted = exhausted || strings.Contains(refusal.Detail.Message, "Data limit exceeded") // ECR Public, by month
		throttled := refusal.Throttled()
		if throttled {
			r.calls.throttled()
		}
		if throttled || refusal.Wait > 0 {
			l.Refused(sent, pace.Refusal{Err: refusal, Wait: refusal.Wait, Throttled: throttled, Exhausted: exhausted})
		}
		if !throttled || req.spare {
			return nil, refusal
		}
	}
}

// apiThrottled reports the error of a call of an AWS API for too many requests. A
// 429 counts without one of the SDK's codes, too: an endpoint or a proxy in
// between may have sent it.
func apiThrottled(err error) bool {
	codes := retry.ThrottleErrorCode{Codes: retry.DefaultThrottleErrorCodes}
	var refusal *awshttp.ResponseError
	tooMany := errors.As(err, &refusal) && refusal.HTTPStatusCode() == http.StatusTooManyRequests
	return tooMany || codes.IsErrorThrottle(err) == aws.TrueTernary
}
