package proxy

import (
	"net/netip"
	"net/url"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
)

// kind is what a request asks for.
type kind string

const (
	kindBase      kind = "base"
	kindManifest  kind = "manifest"
	kindBlob      kind = "blob"
	kindTags      kind = "tags"
	kindReferrers kind = "referrers"
)

// route is a request's path and query, parsed and valid. The digest is set
// where the reference is one.
type route struct {
	kind kind
	// namespace is the ns parameter: the registry that the client means.
	namespace string
	// host is the first element of the path if it may be a registry's host, and
	// rest what follows it.
	host, rest string
	// name is the whole name; empty where it is not a valid repository, as with
	// a host that has a port.
	name      string
	reference string
	digest    digest.Digest
}

// maxName is the length of the longest name, with a host in front of it.
const maxName = 255

// parseRoute reads a path below /v2/ and its query. It is pure, and takes
// anything. Errors are errcode.Error.
func parseRoute(path string, query url.Values) (route, error) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return route{}, notHere(path)
	}
	if rest == "" {
		return route{kind: kindBase}, nil
	}
	name, kind, reference, ok := split(rest)
	if !ok {
		return route{}, notHere(path)
	}
	r := route{kind: kind, reference: reference, namespace: strings.ToLower(query.Get("ns"))}
	if err := r.setName(name); err != nil {
		return route{}, err
	}
	if r.namespace != "" && !isHost(r.namespace) {
		return route{}, errcode.ErrorCodeNameUnknown.WithMessage("the ns parameter is not a registry's host")
	}
	return r, r.setReference()
}

// split finds the fixed words, which stand at the end, as names may contain
// them too.
func split(rest string) (name string, k kind, reference string, ok bool) {
	rest, reference, ok = cutLast(rest)
	if !ok {
		return "", "", "", false
	}
	name, word, ok := cutLast(rest)
	if !ok {
		return "", "", "", false
	}
	switch {
	case word == "manifests":
		return name, kindManifest, reference, true
	case word == "blobs":
		return name, kindBlob, reference, true
	case word == "referrers":
		return name, kindReferrers, reference, true
	case word == "tags" && reference == "list":
		return name, kindTags, "", true
	}
	return "", "", "", false
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func (r *route) setName(name string) error {
	if len(name) > maxName {
		return errcode.ErrorCodeNameInvalid.WithMessage("the repository's name is longer than 255 characters")
	}
	if isName(name) {
		r.name = name
	}
	if host, rest, ok := strings.Cut(name, "/"); ok && looksLikeHost(host) && isHost(host) && isName(rest) {
		r.host, r.rest = strings.ToLower(host), rest
	}
	if r.name == "" && r.host == "" {
		return errcode.ErrorCodeNameInvalid.WithMessage("the path does not hold a valid repository name")
	}
	return nil
}

func (r *route) setReference() error {
	switch {
	case r.kind == kindTags:
		return nil
	case r.kind == kindManifest && isTag(r.reference):
		return nil
	case r.kind == kindManifest && !strings.Contains(r.reference, ":"):
		return errcode.ErrorCodeTagInvalid.WithMessage("the path does not hold a valid tag or digest")
	}
	dgst := digest.Digest(r.reference)
	if cache.CheckDigest(dgst) != nil || (dgst.Algorithm() != digest.SHA256 && dgst.Algorithm() != digest.SHA512) {
		return errcode.ErrorCodeDigestInvalid.WithMessage("the path does not hold a valid sha256 or sha512 digest")
	}
	r.digest = dgst
	return nil
}

func notHere(string) error {
	return errcode.ErrorCodeNameUnknown.WithMessage("there is nothing at this path")
}

// isName checks a repository's name:
// [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
// (distribution-spec 1.1, "Pulling manifests").
func isName(name string) bool {
	for element := range strings.SplitSeq(name, "/") {
		if !isNameElement(element) {
			return false
		}
	}
	return name != ""
}

func isNameElement(s string) bool {
	if s == "" || !isAlnum(s[0]) || !isAlnum(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if isAlnum(s[i]) {
			i++
			continue
		}
		end := i
		for end < len(s) && !isAlnum(s[end]) {
			end++
		}
		switch sep := s[i:end]; {
		case sep == ".", sep == "_", sep == "__", strings.Trim(sep, "-") == "":
		default:
			return false
		}
		i = end
	}
	return true
}

func isAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// isTag checks [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func isTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !isAlnum(c) && (c < 'A' || c > 'Z') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// looksLikeHost tells a registry's host from the first element of a repository
// as container tools do: by a dot, a port, or the name localhost.
func looksLikeHost(s string) bool {
	return strings.ContainsAny(s, ".:") || s == "localhost"
}

// isHost checks host[:port], with an IPv6 address in brackets.
func isHost(s string) bool {
	host := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		port := s[i+1:]
		host = s[:i]
		if port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "" {
			return false
		}
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		addr, err := netip.ParseAddr(host[1 : len(host)-1])
		return err == nil && addr.Is6() && addr.Zone() == ""
	}
	if host == "" || len(host) > 253 || strings.Contains(host, "..") || host[0] == '.' || host[0] == '-' {
		return false
	}
	for i := range len(host) {
		c := host[i]
		if !isAlnum(c) && (c < 'A' || c > 'Z') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
