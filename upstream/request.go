package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// request is a question to a registry.
type request struct {
	method     string // empty means GET
	repository string
	scope      string // the repository that credentials are for, if it is not this one
	path       string // behind /v2/<repository>/
	query      url.Values
	accept     string
	byteRange  string
	timeout    time.Duration // of each answer; 0 means Registry.timeout

	priority pace.Priority // while the upstream throttles
	spare    bool          // not worth waiting for then
}

// maxHops bounds redirects. Registries use one, mirrors in front of them two.
const maxHops = 5

// follow asks the registry, and goes where it redirects to.
func (r *Registry) follow(ctx context.Context, req request) (*http.Response, error) {
	resp, err := r.ask(ctx, req)
	for hops := 0; err == nil && redirected(resp); hops++ {
		if hops == maxHops {
			resp.Body.Close()
			return nil, fmt.Errorf("%s from %s: more than %d redirects", req.path, r.host, maxHops)
		}
		var to *url.URL
		if to, err = r.location(resp); err != nil {
			return nil, err
		}
		resp, err = r.fetch(ctx, resp.Request.Method, to, req)
	}
	return resp, err
}

// ask sends a request to the registry itself, with credentials, which it renews
// once where the registry says that they are no good. The answer may be a
// redirect.
func (r *Registry) ask(ctx context.Context, req request) (*http.Response, error) {
	target := r.endpoint.JoinPath("v2", req.repository, req.path)
	target.RawQuery = req.query.Encode()
	scope := cmp.Or(req.scope, req.repository)
	for again := false; ; again = true {
		var used string
		resp, err := r.paced(ctx, r.limiterOf(ctx, req), req, func() (*http.Response, error) {
			out, err := r.newRequest(ctx, req.method, target, req)
			if err != nil {
				return nil, err
			}
			if used, err = r.auth.Authorize(ctx, out, scope); err != nil {
				return nil, fmt.Errorf("authenticate at %s: %w", r.host, err)
			}
			return r.send(out, req.timeout)
		})
		if err == nil && (resp.StatusCode < http.StatusBadRequest || resp.StatusCode == http.StatusNotFound) {
			r.auth.Accepted(used, scope)
		}
		if err != nil || !auth.IsRefusal(resp) {
			return resp, err
		}
		if resp.StatusCode != http.StatusUnauthorized && req.method == http.MethodHead {
			// A HEAD's refusal has no body to tell an expired token from a real
			// one: ECR answers a bare 403. A GET's has, and its answer serves as
			// well as a second HEAD's.
			resp.Body.Close()
			req.method = http.MethodGet
			return r.ask(ctx, req)
		}
		if again {
			return resp, nil
		}
		retry, err := r.auth.Refused(ctx, resp, used, scope)
		if err != nil {
			resp.Body.Close()
			return nil, fmt.Errorf("authenticate at %s: %w", r.host, err)
		}
		if !retry {
			return resp, nil
		}
		resp.Body.Close()
	}
}

func redirected(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return resp.Header.Get("Location") != ""
	}
	return false
}

// location reads where an answer redirects to, closes the answer, and refuses
// what an upstream may not lead to.
func (r *Registry) location(resp *http.Response) (*url.URL, error) {
	defer resp.Body.Close()
	to, err := resp.Location()
	if err != nil {
		// The URL that it quotes may be a signed one.
		err = fmt.Errorf("%s redirects to what is not a URL", resp.Request.URL.Host)
	} else {
		err = r.transport.Check("a redirect", resp.Request.URL, to)
	}
	if err != nil {
		r.log.Warn("redirect not followed", "from", resp.Request.URL.Host, "error", err)
		return nil, err
	}
	return to, nil
}

// fetch asks a place that the registry redirected to. Credentials go along only
// where it is the registry itself.
func (r *Registry) fetch(ctx context.Context, method string, to *url.URL, req request) (*http.Response, error) {
	own, l := r.own(to), r.requests
	if !own {
		l = r.limits.Of(to.Host, to.Host, 0)
	}
	return r.paced(ctx, l, req, func() (*http.Response, error) {
		out, err := r.newRequest(ctx, method, to, req)
		if err != nil {
			return nil, err
		}
		if own {
			if _, err := r.auth.Authorize(ctx, out, req.repository); err != nil {
				return nil, fmt.Errorf("authenticate at %s: %w", r.host, err)
			}
		}
		return r.send(out, req.timeout)
	})
}

// own reports whether a URL is at the registry itself, the one place for which
// its credentials are.
func (r *Registry) own(u *url.URL) bool {
	return u.Scheme == r.endpoint.Scheme && u.Host == r.endpoint.Host
}

func (r *Registry) newRequest(ctx context.Context, method string, to *url.URL, req request) (*http.Request, error) {
	out, err := http.NewRequestWithContext(ctx, method, to.String(), nil)
	if err != nil {
		return nil, err
	}
	out.Header.Set("User-Agent", "larder")
	if req.accept != "" {
		out.Header.Set("Accept", req.accept)
	}
	if req.byteRange != "" {
		out.Header.Set("Range", req.byteRange)
	}
	return out, nil
}

// send makes one round trip, and waits so long for its headers, and for the body
// where it is that of an error; r.timeout if that is 0. Any other body is the
// caller's to bound; every body is the caller's to close.
func (r *Registry) send(req *http.Request, timeout time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(cmp.Or(timeout, r.timeout), func() { cancel(reply.ErrTimeout) })
	defer timer.Stop()
	target := toStorage
	if r.own(req.URL) {
		target = toRegistry
	}
	req, call := r.calls.begin(req.WithContext(ctx), target)
	resp, err := r.transport.RoundTrip(req)
	if err != nil && errors.Is(context.Cause(ctx), reply.ErrTimeout) {
		err = reply.ErrTimeout
	}
	call.end(resp, err)
	if err != nil {
		cancel(nil)
		guard.LogRefusal(r.log, err)
		return nil, fmt.Errorf("%s %s: %w", req.Method, guard.Origin(req.URL), err)
	}
	if limit, ok := pace.ParseRateLimit(resp.Header); ok && target == toRegistry {
		r.limit.Store(&limit)
	}
	resp.Body = &body{ReadCloser: resp.Body, done: func() { cancel(nil) }}
	if resp.StatusCode >= http.StatusBadRequest {
		reply.Peek(resp)
	}
	return resp, nil
}

// body is an answer's body that gives back what it holds when it is closed.
type body struct {
	io.ReadCloser
	done func()
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.done()
	return err
}
