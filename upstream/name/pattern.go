package name

import (
	"path"
	"strings"
)

// HostPattern matches hosts. It is a host[:port] in lower case, in which each star
// stands for one or more characters of one label: *.dkr.ecr.*.amazonaws.com. The
// last label has no star. Without a star it matches that host only. A pattern for
// hosts of ECR matches no host that only looks like one: see [ParseECR].
type HostPattern string

// AnyHost matches every host. It can stand in a [Pattern] only.
const AnyHost HostPattern = "*"

// ParseHostPattern returns s as a pattern, and whether it is a host or a pattern for
// hosts. The pattern is in lower case, and a [CanonicalHost].
func ParseHostPattern(s string) (p HostPattern, ok bool) {
	if !isHost(s, true) {
		return "", false
	}
	return HostPattern(CanonicalHost(strings.ToLower(s))), true
}

// HasStar reports whether p is a pattern for several hosts rather than one host.
func (p HostPattern) HasStar() bool { return strings.Contains(string(p), "*") }

// Match reports whether p matches a host that [ParseRegistry] returned. A pattern with
// stars matches names only, not addresses; a port must be the same.
func (p HostPattern) Match(host string) bool {
	if p == AnyHost {
		return true
	}
	if !p.HasStar() {
		return string(p) == host
	}
	if isAddress(host) {
		return false
	}
	asked := host
	for pattern, more := string(p), true; more; {
		var pLabel, label string
		var hostMore bool
		pLabel, pattern, more = strings.Cut(pattern, ".")
		label, host, hostMore = strings.Cut(host, ".")
		if more != hostMore || !glob(pLabel, label, 1) {
			return false
		}
	}
	if _, forECR := p.ECR(); forECR {
		_, isECR := ParseECR(asked)
		return isECR
	}
	return true
}

// MoreSpecific reports whether p comes before q, if both match the same host. They
// are compared label by label from the left, and the first difference decides: a
// label without a star comes before one with a star, and of two with stars the one
// with more other characters. So the registries of an account in all regions come
// before those of all accounts in a region.
func (p HostPattern) MoreSpecific(q HostPattern) bool {
	if !p.HasStar() || !q.HasStar() {
		return !p.HasStar() && q.HasStar()
	}
	for a, b := string(p), string(q); a != "" && b != ""; {
		var aLabel, bLabel string
		aLabel, a, _ = strings.Cut(a, ".")
		bLabel, b, _ = strings.Cut(b, ".")
		aStars, bStars := strings.Count(aLabel, "*"), strings.Count(bLabel, "*")
		if (aStars == 0) != (bStars == 0) {
			return aStars == 0
		}
		if aFixed, bFixed := len(aLabel)-aStars, len(bLabel)-bStars; aFixed != bFixed {
			return aFixed > bFixed
		}
	}
	return false
}

// RepositoryPattern matches repositories. A star stands for any characters of one
// element of the path, or none. As the whole last element it stands for everything
// below: team/* matches team/a and team/a/b, but not team; team/app-* matches
// team/app-1, but not team/app-1/b; * matches every repository.
type RepositoryPattern string

// ParseRepositoryPattern returns s, and whether it is a pattern: one that contains
// a character that no repository has is not.
func ParseRepositoryPattern(s string) (p RepositoryPattern, ok bool) {
	for element := range strings.SplitSeq(s, "/") {
		if element == "" || strings.Contains(element, "**") || strings.Trim(element, "abcdefghijklmnopqrstuvwxyz0123456789._-*") != "" {
			return "", false
		}
	}
	return RepositoryPattern(s), true
}

// Match reports whether p matches the name of a repository.
func (p RepositoryPattern) Match(repository string) bool {
	for pattern, more := string(p), true; more; {
		if pattern == "*" {
			return true
		}
		var pElement, element string
		var below bool
		pElement, pattern, more = strings.Cut(pattern, "/")
		element, repository, below = strings.Cut(repository, "/")
		if more != below || !Glob(pElement, element) {
			return false
		}
	}
	return true
}

// Pattern matches repositories by their host and name, such as docker.io/library/*.
type Pattern struct {
	Host       HostPattern
	Repository RepositoryPattern
}

// ParsePattern parses <host>/<repository>. The host may be [AnyHost].
func ParsePattern(s string) (p Pattern, ok bool) {
	host, repository, _ := strings.Cut(s, "/")
	if p.Host, ok = ParseHostPattern(host); host == string(AnyHost) {
		p.Host, ok = AnyHost, true
	}
	if !ok {
		return Pattern{}, false
	}
	if p.Repository, ok = ParseRepositoryPattern(repository); !ok {
		return Pattern{}, false
	}
	return p, true
}

// Match reports whether p matches a repository of a host that [ParseRegistry] returned.
func (p Pattern) Match(host, repository string) bool {
	return p.Host.Match(host) && p.Repository.Match(repository)
}

// String returns the pattern in the form that [ParsePattern] parses; "" for the
// zero value.
func (p Pattern) String() string {
	if p == (Pattern{}) {
		return ""
	}
	return string(p.Host) + "/" + string(p.Repository)
}

// ImagePattern matches the whole names of images: <host>/<repository>:<tag>, or
// @<digest>. A star stands for any text, slashes too, a question mark for one
// character, and [a-z] for one of these.
type ImagePattern string

// ParseImagePattern returns s as a pattern. A host without stars at its beginning
// becomes the [CanonicalHost]. The error is [path.ErrBadPattern].
func ParseImagePattern(s string) (ImagePattern, error) {
	if first, rest, ok := CutHost(s); ok {
		if host, ok := ParseRegistry(first); ok {
			s = host + "/" + rest
		}
	}
	if _, err := matchImage(s, ""); err != nil {
		return "", err
	}
	return ImagePattern(s), nil
}

// IsImagePattern reports whether s is a pattern for images rather than the name of
// one. It may be malformed.
func IsImagePattern(s string) bool {
	return strings.ContainsAny(s, `*?\`) || strings.LastIndexByte(s, '[') > 0 // a name may begin with an IPv6 address
}

// Match reports whether p matches the name of an image.
func (p ImagePattern) Match(image string) bool {
	ok, _ := matchImage(string(p), image) // the syntax is right
	return ok
}

// MayMatch reports whether p can match names of images of these hosts.
func (p ImagePattern) MayMatch(hosts HostPattern) bool {
	host, _, ok := strings.Cut(string(p), "/")
	return !ok || strings.ContainsAny(host, `*?[\`) || hosts.Match(host)
}

// MatchesTags reports whether p can match names with a tag. Without a star it can
// only if it has a host, a repository and a tag.
func (p ImagePattern) MatchesTags() bool {
	if strings.ContainsAny(string(p), "@ \t\n") {
		return false
	}
	if strings.Contains(string(p), "*") {
		return true
	}
	host, rest, _ := strings.Cut(string(p), "/")
	repository, tag, ok := strings.Cut(rest, ":")
	return ok && host != "" && repository != "" && tag != ""
}

func matchImage(pattern, image string) (bool, error) {
	const plain = "\x00" // in no name; a slash is special to path.Match
	return path.Match(strings.ReplaceAll(pattern, "/", plain), strings.ReplaceAll(image, "/", plain))
}
