package proxy

import (
	"cmp"
	"errors"
	"io/fs"
	"net/http"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/access"
	"github.com/larder-registry/larder/proxy/audit"
	"github.com/larder-registry/larder/proxy/policy"
)

// notAudited is the error of an image that is not served because its line in the audit cannot be
// written.
type notAudited struct{ error }

// auditAllowed writes that a client gets an image, before the first byte of the response. The image
// must not be sent if it returns an error.
func (p *pulls) auditAllowed(w *recorder, r *http.Request, t target, state cache.State, dgst digest.Digest) error {
	if !p.audit.On() {
		return nil
	}
	e := entryOf(r, t)
	e.Digest, e.Allowed, e.Why = dgst.String(), true, audit.Upstream
	switch {
	case t.why != "": // the client's own rights have decided
		e.Why = map[access.Why]audit.Why{access.Upstream: audit.Upstream, access.Remembered: audit.Remembered, access.Offline: audit.Offline}[t.why]
	case state == cache.Hit:
		e.Why = audit.Cached
	case state == cache.Stale:
		e.Why = audit.Stale
	}
	switch policy.Result(w.Header().Get(policyHeader)) {
	case policy.Refused:
		e.Warned = audit.Policy
	case policy.Unknown:
		e.Warned = audit.Undecided
	case policy.Allowed:
	}
	if err := p.audit.Write(r.Context(), e); err != nil {
		w.Header().Set(xCache, string(state))
		return notAudited{err}
	}
	return nil
}

// auditRefused writes that a client does not get an image, or a token for one. A line that cannot be written
// changes nothing: the client gets no image either way.
func (p *pulls) auditRefused(w *recorder, r *http.Request, t target, err error) {
	var challenged *challengeError
	var login loginError
	isLogin := errors.As(err, &login)
	switch {
	case t.kind != kindManifest && !isLogin || !p.audit.On() || w.status != 0:
		return // with a status it was decided, and the response broke off
	case errors.As(err, new(notAudited)):
		return
	case errors.As(err, &challenged) && challenged.Challenge.Error == "":
		return // nothing is decided: the client is asked for its credentials
	}
	e := entryOf(r, t)
	e.Digest, e.Why = t.digest.String(), whyRefused(err)
	var unfit *policyError
	if errors.As(err, &unfit) {
		e.Digest = unfit.Digest.String()
	}
	var why *refused
	if errors.As(err, &why) {
		e.Upstream = cmp.Or(why.registry, e.Upstream)
	}
	if isLogin {
		e.Upstream, e.Repository, e.User = login.registry, login.repository, login.user
	}
	_ = p.audit.Write(r.Context(), e)
}

// whyRefused returns why a client does not get an image.
func whyRefused(err error) audit.Why {
	var why *refused
	var unfit *policyError
	switch {
	case errors.As(err, &unfit) && unfit.Result == policy.Refused:
		return audit.Policy
	case errors.As(err, &unfit):
		return audit.Undecided
	case errors.As(err, new(*challengeError)):
		return audit.Token
	case errors.As(err, &why) && why.reason == notAllowed:
		return audit.NotAllowed
	case errors.As(err, &why) && why.reason == unusable:
		return audit.Failed
	case errors.As(err, &why):
		return audit.NotConfigured
	case cache.IsPostponed(err):
		return audit.Offline
	case errors.Is(err, fs.ErrNotExist):
		return audit.NotFound
	case errors.Is(err, fs.ErrPermission):
		return audit.Refused
	}
	return audit.Failed
}

// entryOf returns the entry of a request, without the decision.
func entryOf(r *http.Request, t target) audit.Entry {
	e := audit.Entry{
		Client: r.RemoteAddr, Agent: r.UserAgent(), User: t.user, Method: r.Method,
		Upstream: t.repo.Upstream, Repository: t.repo.Name, Reference: t.reference,
	}
	if e.Upstream == "" { // no upstream was found
		e.Upstream, e.Repository = cmp.Or(t.namespace, t.host), cmp.Or(t.name, t.rest)
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		e.Peer = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	return e
}
