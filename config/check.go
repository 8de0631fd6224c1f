package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// check reports what is wrong between keys that are right by themselves.
func (l *loader) check() {
	l.checkListeners()
	if len(l.config.Upstreams) == 0 {
		l.reject("upstreams", "expected at least one upstream")
		return
	}
	hosts := make(map[string]string)
	for i := range l.config.Upstreams {
		l.checkUpstream(fmt.Sprintf("upstreams[%d]", i), &l.config.Upstreams[i], hosts)
	}
	l.checkDefaultUpstream()
	l.checkLifecycle(l.rules)
}

// reject reports a mistake about a key, unless there is one already.
func (l *loader) reject(key, problem string) {
	if !l.failed[key] {
		l.report(l.where(key), key, problem)
	}
}

// where returns the place of a key. One that is not there counts as being where
// the section around it is.
func (l *loader) where(key string) place {
	at, ok := l.places[key]
	for around := key; !ok && around != ""; at, ok = l.places[around] {
		around = around[:max(strings.LastIndexAny(around, ".["), 0)]
	}
	if !ok {
		at = place{file: l.file}
	}
	return at
}

func (l *loader) checkListeners() {
	c := l.config
	if l.failed["listen"] || l.failed["admin"] || c.Admin == "" || !collide(c.Listen, c.Admin) {
		return
	}
	if _, ok := l.places["admin"]; ok {
		l.reject("admin", fmt.Sprintf("expected another address than listen's, which is %s", c.Listen))
	} else {
		l.reject("listen", fmt.Sprintf("expected another address than admin's, which is %s", c.Admin))
	}
}

// collide reports whether two valid addresses cannot be listened on at once.
func collide(a, b string) bool {
	aHost, aPort, _ := net.SplitHostPort(a)
	bHost, bPort, _ := net.SplitHostPort(b)
	if aPort != bPort || aPort == "0" {
		return false
	}
	return isEverywhere(aHost) || isEverywhere(bHost) || listenIP(aHost) == listenIP(bHost)
}

// isEverywhere reports whether to listen on host is to listen on all addresses.
func isEverywhere(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.IsUnspecified()
}

// listenIP returns host in lower case, and for localhost the address that
// [net.Listen] takes first.
func listenIP(host string) string {
	if host = strings.ToLower(host); host == "localhost" {
		return "127.0.0.1"
	}
	return host
}

// checkUpstream checks the upstream at key; hosts maps the hosts of those
// before it to their keys.
func (l *loader) checkUpstream(key string, u *Upstream, hosts map[string]string) {
	if l.failed[key] {
		return
	}
	if u.Host == "" {
		l.reject(key+".host", "missing; expected the host by which clients call the registry")
	} else if first, ok := hosts[u.Host]; ok {
		l.reject(key+".host", fmt.Sprintf("%s is given already on line %d", u.Host, l.places[first].line))
	} else {
		hosts[u.Host] = key + ".host"
	}
	if isPattern(u.Host) && u.Endpoint != "" {
		l.reject(key+".endpoint", "not possible with a pattern, whose hosts each have their own")
	}
	if u.ECR != nil && u.Host != "" {
		l.checkECR(key+".ecr", u)
	}
	l.checkAuth(key, u)
}

func (l *loader) checkAuth(key string, u *Upstream) {
	switch {
	case u.Auth.DockerConfig != "" && (u.Auth.Username != "" || u.Auth.PasswordFile != ""):
		l.reject(key+".auth.docker_config", "not possible together with username and password_file")
	case u.Auth.Username == "" && u.Auth.PasswordFile != "":
		l.reject(key+".auth.username", "missing; expected together with password_file")
	case u.Auth.Username != "" && u.Auth.PasswordFile == "":
		l.reject(key+".auth.password_file", "missing; expected together with username")
	}
	if u.Auth != (Auth{}) && u.ECR != nil {
		l.reject(key+".auth", "not possible together with ecr, whose credentials are AWS's")
	}
	_, ecr := ecrRegion(u.Host)
	if hasCredentials := ecr || u.ECR != nil || u.Auth != (Auth{}); hasCredentials && isExposing(u.Endpoint) {
		l.reject(key+".endpoint", "expected https, since credentials are sent there and it is not a loopback address")
	}
}

// isExposing reports whether others could read what is sent to a valid URL.
func isExposing(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && u.Scheme == "http" && !isLoopback(u.Hostname())
}

func (l *loader) checkECR(key string, u *Upstream) {
	told, isECR := ecrRegion(u.Host)
	switch region := u.ECR.Region; {
	case !isECR && region == "":
		l.reject(key+".region", "missing; expected a region, since the host is not an ECR host that tells it")
	case isECR && region != "" && isPattern(told):
		l.reject(key+".region", "not possible with this pattern, whose hosts each tell their own")
	case isECR && region != "" && region != told:
		l.reject(key+".region", fmt.Sprintf("expected %s, which the host tells, or none", told))
	}
	if u.ECR.RoleARN == "" && u.ECR.ExternalID != "" {
		l.reject(key+".external_id", "expected together with role_arn, whose trust policy asks for it")
	}
	if u.ECR.RoleARN == "" && u.ECR.SessionName != "" {
		l.reject(key+".session_name", "expected together with role_arn, whose session it names")
	}
	l.checkReplicas(key+".replicas", u)
	if isExposing(u.ECR.APIEndpoint) {
		l.reject(key+".api_endpoint", "expected https, since credentials come from there and it is not a loopback address")
	}
}

func (l *loader) checkDefaultUpstream() {
	c := l.config
	if c.DefaultUpstream != "" && !l.mayServe(c.DefaultUpstream) {
		l.reject("default_upstream", fmt.Sprintf("expected a host that one of the upstreams serves, got %q", c.DefaultUpstream))
	}
}

// mayServe reports whether an upstream serves a host, or one whose own host is
// not known may do so.
func (l *loader) mayServe(host string) bool {
	if _, ok := l.config.Match(host); ok || l.failed["upstreams"] {
		return true
	}
	for i := range l.config.Upstreams {
		if key := fmt.Sprintf("upstreams[%d]", i); l.failed[key] || l.failed[key+".host"] {
			return true
		}
	}
	return false
}
