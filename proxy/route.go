package proxy

import (
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/access"
	"github.com/larder-registry/larder/upstream/name"
)

// parseRoute parses the path and the query of a request. It is pure and takes any
// input. The error is an errcode.Error.
func parseRoute(path string, query url.Values) (route, error) {
	switch path {
	case "/":
		return route{kind: kindRoot}, nil
	case "/v2", "/v2/":
		return route{kind: kindBase}, nil
	case access.TokenPath:
		return route{kind: kindToken}, nil
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return route{}, errNoSuchPath
	}
	repository, kind, reference, ok := splitPath(rest)
	if !ok {
		return route{}, errNoSuchPath
	}
	rt, err := parseName(repository, query.Get("ns"))
	if err != nil {
		return route{}, err
	}
	rt.kind, rt.reference = kind, reference
	return withDigest(rt)
}

// parseName parses a repository as a client names it, and the parameter ns.
func parseName(repository, ns string) (route, error) {
	if len(repository) > name.MaxRepository {
		return route{}, errNameTooLong
	}
	var rt route
	if name.IsRepository(repository) {
		rt.name = repository
	}
	if first, rest, ok := name.CutHost(repository); ok && name.IsRepository(rest) {
		if host, ok := name.ParseHost(first); ok {
			rt.host, rt.rest = host, rest
		}
	}
	if rt.name == "" && rt.host == "" {
		return route{}, errName
	}
	if ns != "" {
		var ok bool
		if rt.namespace, ok = name.ParseHost(ns); !ok {
			return route{}, errNamespace
		}
	}
	return rt, nil
}

// splitPath splits what follows /v2/. The fixed words are looked for at its end, since
// a repository may contain them too.
func splitPath(path string) (repository string, k kind, reference string, ok bool) {
	path, reference, ok = cutLast(path)
	if !ok {
		return "", "", "", false
	}
	repository, word, ok := cutLast(path)
	if !ok {
		return "", "", "", false
	}
	switch {
	case word == "manifests":
		return repository, kindManifest, reference, true
	case word == "blobs":
		return repository, kindBlob, reference, true
	case word == "referrers":
		return repository, kindReferrers, reference, true
	case word == "tags" && reference == "list":
		return repository, kindTags, "", true
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

// withDigest checks the reference of a route, and sets its digest if it is one.
func withDigest(rt route) (route, error) {
	switch {
	case rt.kind == kindTags:
		return rt, nil
	case rt.kind == kindManifest && name.IsTag(rt.reference):
		return rt, nil
	case rt.kind == kindManifest && !strings.Contains(rt.reference, ":"):
		return rt, errTag
	}
	dgst := digest.Digest(rt.reference)
	if cache.CheckDigest(dgst) != nil || (dgst.Algorithm() != digest.SHA256 && dgst.Algorithm() != digest.SHA512) {
		return rt, errDigest
	}
	rt.digest = dgst
	return rt, nil
}
