package auth

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/larder-registry/larder/upstream/guard"
)

// Checker refuses URLs to which an upstream may not lead.
type Checker interface {
	Check(use string, from, to *url.URL) error
}

// realms decides which token services a registry may name, and which of them get its
// login. Anonymous requests go wherever the guard allows.
type realms struct {
	registry *url.URL
	listed   []string // host[:port] that the operator has allowed
	guard    Checker
}

// tokenUse names the connection in refusals.
const tokenUse = "a token request"

// errRealm does not quote the realm, which may be long and hold a password.
var errRealm = errors.New("the realm is not a URL")

// parse returns the URL of a challenge's token service.
func (r realms) parse(c challenge) (*url.URL, error) {
	u, err := url.Parse(c.params["realm"])
	if err != nil {
		return nil, errRealm
	}
	return u, nil
}

// check refuses a token service to which the registry may not send a request, or not
// one with its login.
func (r realms) check(service *url.URL, l Login) error {
	if err := r.guard.Check(tokenUse, r.registry, service); err != nil {
		return err
	}
	if !sendsLogin(l) || r.owns(service) {
		return nil
	}
	return refuseLogin(service)
}

// checkRedirect refuses a URL to which a token service may not redirect a request, or
// not one with the login: that stays at the origin, or becomes more secure.
func (r realms) checkRedirect(from, to *url.URL, l Login) error {
	if err := r.guard.Check("a redirect of "+tokenUse, from, to); err != nil {
		return err
	}
	if !sendsLogin(l) || guard.SameOrigin(from, to) || secures(from, to) || r.lists(to) {
		return nil
	}
	return refuseLogin(to)
}

// secures reports a redirect from port 80 of a host to its port 443.
func secures(from, to *url.URL) bool {
	return from.Scheme == "http" && to.Scheme == "https" && guard.HasOwnPort(from) && guard.HasOwnPort(to) &&
		strings.EqualFold(from.Hostname(), to.Hostname())
}

// sendsLogin reports whether a token service is sent anything secret for a login. A
// bearer token is for the registry itself.
func sendsLogin(l Login) bool { return l != (Login{}) && l.Bearer == "" }

// refuseLogin is a [guard.RefusedError] that says how to allow it.
func refuseLogin(to *url.URL) error {
	return fmt.Errorf("%w with the registry's credentials; if they are meant for it, add %s to auth.realms", guard.Refuse(tokenUse, to), to.Host)
}

// owns reports whether a token service is the registry's own: at its origin, at the
// port of the scheme in its registrable domain, or listed (CVE-2026-33540).
func (r realms) owns(service *url.URL) bool {
	return guard.SameOrigin(service, r.registry) || r.lists(service) ||
		guard.HasOwnPort(service) && sameDomain(service.Hostname(), r.registry.Hostname())
}

func (r realms) lists(u *url.URL) bool {
	for _, host := range r.listed {
		if guard.SameOrigin(u, &url.URL{Scheme: u.Scheme, Host: host}) {
			return true
		}
	}
	return false
}

// sameDomain reports whether two hosts are in one registrable domain, whose owner
// decides about both. Below a suffix that no registry of domains manages, such as
// cluster.local or internal, neighbours are strangers.
func sameDomain(a, b string) bool {
	theirs, err1 := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(a))
	ours, err2 := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(b))
	if err1 != nil || err2 != nil || theirs != ours {
		return false
	}
	suffix, icann := publicsuffix.PublicSuffix(ours)
	return icann || strings.Contains(suffix, ".") // one without a dot is on no list
}
