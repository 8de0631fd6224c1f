package config

import "strings"

// Match returns the upstream that serves host, which is a host[:port] as a
// client gave it, with Endpoint as it is for that host. It reports false if
// there is none: then host must not be asked.
//
// An entry for exactly this host comes first. Of the patterns that match, the
// most specific one does: they are compared label by label from the left, where
// a label without stars comes before one with stars, and of those with stars the
// one with more characters beside them; the first difference decides. So an
// account's registries in all regions come before a region's of all accounts. Of
// two that are alike in this, the earlier one counts.
//
// Case does not count; a port does, also in a pattern. A pattern matches names
// only, never an IP address or anything that is not a valid host.
func (c *Config) Match(host string) (Upstream, bool) {
	if !isHost(host) {
		return Upstream{}, false
	}
	host = strings.ToLower(host)
	best := -1
	for i, u := range c.Upstreams {
		switch {
		case u.Host == host:
			return u, true
		case !isPattern(u.Host) || !matchHost(u.Host, host):
		case best < 0 || moreSpecific(u.Host, c.Upstreams[best].Host):
			best = i
		}
	}
	if best < 0 {
		return Upstream{}, false
	}
	u := c.Upstreams[best]
	u.Endpoint = defaultEndpoint(host)
	return u, true
}

// moreSpecific reports whether a comes before b, where both match the same host
// and so have as many labels.
func moreSpecific(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range as {
		if isPattern(as[i]) != isPattern(bs[i]) {
			return !isPattern(as[i])
		}
		if literals(as[i]) != literals(bs[i]) {
			return literals(as[i]) > literals(bs[i])
		}
	}
	return false
}

// Allows reports whether repository, as it is called at the upstream
// (library/alpine at docker.io), may be asked for.
//
// It may if Allow is empty or one of its patterns matches. "*" stands for any
// characters, or none, within one element of the path; alone as the last
// element it stands for everything below. So team/* matches team/a and
// team/a/b but not team, team/app-* matches team/app-1 but not team/app-1/b,
// and * matches all.
func (u Upstream) Allows(repository string) bool {
	if len(u.Allow) == 0 {
		return true
	}
	for _, pattern := range u.Allow {
		if matchRepository(pattern, repository) {
			return true
		}
	}
	return false
}

// literals is how many characters of a pattern stand for themselves.
func literals(pattern string) int { return len(pattern) - strings.Count(pattern, "*") }

// matchHost matches label by label; a port is part of the last one.
func matchHost(pattern, host string) bool {
	if isAddress(host) {
		return false
	}
	want, got := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if !glob(want[i], got[i], 1) {
			return false
		}
	}
	return true
}

func matchRepository(pattern, repository string) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(repository, "/")
	if last := len(want) - 1; want[last] == "*" && len(got) > last {
		want, got = want[:last], got[:last]
	}
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if !glob(want[i], got[i], 0) {
			return false
		}
	}
	return true
}

// glob reports whether s is pattern with each star replaced by least characters
// or more. Taking the first place where the text between two stars is found is
// enough, since a later one leaves less for the rest.
func glob(pattern, s string, least int) bool {
	parts := strings.Split(pattern, "*")
	s, ok := strings.CutPrefix(s, parts[0])
	if len(parts) == 1 {
		return ok && s == ""
	}
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		if !ok || len(s) < least {
			return false
		}
		_, s, ok = strings.Cut(s[least:], part)
	}
	return ok && len(s) >= least+len(parts[last]) && strings.HasSuffix(s, parts[last])
}
