package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/ecr"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/link"
	"github.com/larder-registry/larder/upstream/offline"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/patience"
	"github.com/larder-registry/larder/upstream/redact"
	"github.com/larder-registry/larder/upstream/reply"
	"github.com/larder-registry/larder/upstream/telemetry"
)

// site is one registry at one endpoint. It is safe for concurrent use.
type site struct {
	host       string
	endpoint   *url.URL
	timeout    time.Duration
	transport  *guard.Transport
	throttle   *throttle
	places     *patience.Places
	gate       *offline.Gate
	elsewhere  func(host string) error // is an offline.Error for another upstream that is offline
	link       *link.Link              // may be nil
	counter    *telemetry.Upstream
	log        *slog.Logger
	rateLimit  atomic.Pointer[pace.RateLimit] // the latest statement
	sent       *redact.Memory
	guests     *guests        // at other registries, to which this one redirects
	configured *authenticator // of the configured login
	clients    *clients
	ecr        *ecr.Registry // what configured authenticates with; nil unless these are tokens of ECR's API
}

// credentials authenticates requests to one registry. It is safe for concurrent
// use.
type credentials interface {
	// Authorize sets the credentials of a request for a repository. used tells them
	// apart from later ones.
	Authorize(ctx context.Context, req *http.Request, repository string) (used string, err error)
	// Accepted records an answer that shows the credentials to be good.
	Accepted(used, repository string)
	// Refused looks at an answer of 400, 401 or 403, and reports whether there are
	// now other credentials to try. An expired token is renewed here. The body can be
	// read again.
	Refused(ctx context.Context, resp *http.Response, used, repository string) (retry bool, err error)
}

// maxHops bounds redirects. Registries use one, and mirrors in front of them two.
const maxHops = 5

// follow asks the registry, and follows its redirects.
func (s *site) follow(ctx context.Context, req request) (*http.Response, error) {
	resp, err := s.ask(ctx, req)
	for hops := 0; err == nil && reply.IsRedirect(resp); hops++ {
		if hops == maxHops {
			resp.Body.Close()
			return nil, fmt.Errorf("%s from %s: more than %d redirects", req.path, s.host, maxHops)
		}
		var to *url.URL
		if to, err = s.location(resp); err != nil {
			return nil, err
		}
		resp, err = s.fetch(ctx, resp.Request.Method, to, req)
	}
	return resp, err
}

// ask sends a request to the registry itself, with credentials. If the registry
// refuses them, it has them renewed and asks once more. The answer may be a
// redirect.
func (s *site) ask(ctx context.Context, req request) (*http.Response, error) {
	scope, as := cmp.Or(req.scope, req.repository), s.as(ctx)
	until := time.Now().Add(cmp.Or(req.timeout, s.timeout))
	for again := false; ; again = true {
		resp, used, err := s.askOnce(ctx, as, req, scope)
		if err == nil && !again && used == "" && s.introduces(ctx, as, resp, until) {
			resp.Body.Close()
			continue
		}
		if err != nil || !auth.IsRefusal(resp) {
			return resp, err
		}
		if resp.StatusCode != http.StatusUnauthorized && req.method == http.MethodHead {
			// The refusal of a HEAD has no body that tells an expired token from a
			// denial: ECR answers a bare 403. That of a GET has.
			resp.Body.Close()
			req.method = http.MethodGet
			return s.ask(ctx, req)
		}
		if again {
			return resp, nil
		}
		retry, err := as.Refused(ctx, resp, used, scope)
		if err != nil {
			resp.Body.Close()
			return nil, fmt.Errorf("authenticate at %s: %w", s.host, err)
		}
		if !retry {
			return resp, nil
		}
		resp.Body.Close()
	}
}

// askOnce sends a request to the registry with the credentials that there are.
func (s *site) askOnce(ctx context.Context, as *authenticator, req request, scope string) (resp *http.Response, used string, err error) {
	target := s.url(req)
	target.RawQuery = req.query.Encode()
	l := s.limiter(ctx, as, req)
	resp, err = s.throttle.do(ctx, l, req, func() (*http.Response, error) {
		out, err := newRequest(ctx, req.method, target, req)
		if err != nil {
			return nil, err
		}
		if used, err = as.Authorize(ctx, out, scope); err != nil {
			return nil, fmt.Errorf("authenticate at %s: %w", s.host, err)
		}
		return s.send(out, req, l)
	})
	if err == nil && (resp.StatusCode < http.StatusBadRequest || resp.StatusCode == http.StatusNotFound) {
		as.Accepted(used, scope)
	}
	return resp, used, err
}

// introduces reports whether there are now credentials for a request that was sent
// without: some registries answer 404 or 403 until one has logged in, and challenge at
// /v2/ alone. It asks there until that time.
func (s *site) introduces(ctx context.Context, as *authenticator, resp *http.Response, until time.Time) bool {
	left := time.Until(until)
	if as.challenged == nil || left <= 0 || resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusForbidden {
		return false
	}
	if as.challenged.Scheme() != "" { // since the request was sent
		return true
	}
	return as.stranger.ask(ctx, func(ctx context.Context) (bool, error) {
		base, used, err := s.askOnce(ctx, as, request{path: "/", timeout: left}, "")
		if err != nil {
			return false, err
		}
		defer base.Body.Close()
		if base.StatusCode != http.StatusUnauthorized {
			return false, nil
		}
		return as.challenged.Refused(ctx, base, used, "")
	})
}

// limiter returns the limiter for a request to the registry itself.
func (s *site) limiter(ctx context.Context, as *authenticator, req request) *pace.Limiter {
	return s.throttle.limiter(req, func() bool { return as.challenged != nil && as.challenged.Anonymous(ctx) })
}

// location returns the URL that an answer redirects to, and closes the answer. It
// refuses a URL to which an upstream may not lead.
func (s *site) location(resp *http.Response) (*url.URL, error) {
	defer resp.Body.Close()
	to, err := resp.Location()
	if err != nil {
		// The error quotes the URL, which may be signed.
		err = fmt.Errorf("%s redirects to something that is not a URL", resp.Request.URL.Host)
	} else {
		err = s.transport.Check("a redirect", resp.Request.URL, to)
	}
	if err != nil {
		s.log.Warn("redirect not followed", "from", resp.Request.URL.Host, "error", err)
		return nil, err
	}
	return to, nil
}

// fetch sends a request to a URL that the registry redirected to, with credentials
// only if that is the registry itself. If it is another registry, which challenges, it
// is asked once more as an anonymous guest.
func (s *site) fetch(ctx context.Context, method string, to *url.URL, req request) (*http.Response, error) {
	if s.own(to) {
		resp, _, err := s.fetchOnce(ctx, method, to, req, s.as(ctx), req.repository)
		return resp, err
	}
	if err := s.elsewhere(to.Host); err != nil {
		return nil, err
	}
	repository := repositoryIn(to.Path)
	for again := false; ; again = true {
		guest := s.guests.at(to)
		resp, used, err := s.fetchOnce(ctx, method, to, req, guest, repository)
		if err != nil || again || !auth.IsRefusal(resp) {
			return resp, err
		}
		if guest == nil && resp.StatusCode == http.StatusUnauthorized {
			guest = s.guests.add(to)
		}
		if guest == nil {
			return resp, nil
		}
		retry, err := guest.Refused(ctx, resp, used, repository)
		if err != nil {
			resp.Body.Close()
			return nil, fmt.Errorf("authenticate at %s, where %s redirects to: %w", to.Host, s.host, err)
		}
		if !retry {
			return resp, nil
		}
		resp.Body.Close()
	}
}

// fetchOnce is fetch with these credentials, or none if they are nil.
func (s *site) fetchOnce(ctx context.Context, method string, to *url.URL, req request, with credentials, repository string) (resp *http.Response, used string, err error) {
	l := s.throttle.requests
	if !s.own(to) {
		l = s.throttle.storage(to.Host)
	}
	resp, err = s.throttle.do(ctx, l, req, func() (*http.Response, error) {
		out, err := newRequest(ctx, method, to, req)
		if err != nil {
			return nil, err
		}
		// As clients send it, for storage that wants one: without a query, which may be signed.
		out.Header.Set("Referer", s.url(req).String())
		if with != nil {
			if used, err = with.Authorize(ctx, out, repository); err != nil {
				return nil, fmt.Errorf("authenticate at %s: %w", to.Host, err)
			}
		}
		return s.send(out, req, l)
	})
	return resp, used, err
}

// url returns the URL of a request to the registry itself, without its query.
func (s *site) url(req request) *url.URL { return s.endpoint.JoinPath("v2", req.repository, req.path) }

// own reports whether a URL is at the registry itself. Its credentials are for no
// other server.
func (s *site) own(u *url.URL) bool { return guard.SameOrigin(u, s.endpoint) }

// send sends a request, which may be sent twice: see [patience.Place.Ask]. The
// timeout bounds the headers, the body of an error, and a document. The caller bounds
// any other body, and closes every one.
func (s *site) send(out *http.Request, req request, l *pace.Limiter) (*http.Response, error) {
	target := telemetry.Storage
	if s.own(out.URL) {
		target = telemetry.Registry
	}
	timeout := cmp.Or(req.timeout, s.timeout)
	resp, err := s.places.Of(out.URL.Host).Ask(out.Context(), patience.Question{
		Timeout:  timeout,
		Slow:     timeout > s.timeout,
		Repeated: s.repeated,
		Again: func() bool {
			_, err := l.Try()
			return err == nil
		},
		Send: func(ctx context.Context, fresh bool) (*http.Response, error) {
			return s.roundTrip(out.Clone(ctx), target, fresh, req.awaited)
		},
	})
	if err != nil {
		guard.LogRefusal(s.log, err)
		return nil, fmt.Errorf("%s %s: %w", out.Method, guard.Origin(out.URL), err)
	}
	if limit, ok := pace.ParseRateLimit(resp.Header); ok && target == telemetry.Registry {
		s.rateLimit.Store(&limit)
	}
	return resp, nil
}

// roundTrip makes one round trip while the upstream is not offline, and awaits the body
// of an error, or as many bytes of another one. fresh has it use a new connection.
func (s *site) roundTrip(req *http.Request, target telemetry.Target, fresh bool, awaited int64) (*http.Response, error) {
	ctx, leave, err := s.gate.Enter(req.Context())
	if err != nil {
		return nil, err
	}
	resp, err := s.exchange(req.WithContext(ctx), target, fresh, awaited)
	if err != nil {
		if cause := context.Cause(ctx); offline.Is(cause) {
			err = cause
		}
		leave()
		return nil, err
	}
	resp.Body = &body{resp.Body, leave}
	return resp, nil
}

// exchange is roundTrip for an upstream that is not offline.
func (s *site) exchange(req *http.Request, target telemetry.Target, fresh bool, awaited int64) (*http.Response, error) {
	send := s.transport.RoundTrip
	if fresh {
		send = s.transport.RoundTripFresh
	}
	ctx := req.Context()
	req, call := s.counter.Begin(s.sent.Sending(req), target)
	resp, err := send(req)
	switch {
	case err == nil:
	case errors.Is(context.Cause(ctx), reply.ErrTimeout):
		err = reply.ErrTimeout
	default:
		err = redact.Of(req).Error(err) // it may quote what the server wrote
	}
	call.End(resp, err)
	switch {
	case err != nil:
		return nil, err
	case !hasContent(resp) && !reply.IsRedirect(resp):
		reply.Peek(resp)
	case awaited > 0 && hasContent(resp):
		if err := patience.Await(resp, awaited); err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
	}
	return resp, nil
}

// repeated counts a request that was sent twice. If the second answer was first, other
// connections that were kept beside the first one may be dead too.
func (s *site) repeated(used bool) {
	s.counter.Repeated(used)
	if used {
		s.transport.CloseIdleConnections()
	}
}
