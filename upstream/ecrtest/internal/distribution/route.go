package distribution

import (
	"strings"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
)

const catalogPath = "/v2/_catalog"

// route is the parsed path of a request.
type route struct {
	op         frontend.Op // 0 if the path is not one of the registry's
	repository string
	reference  string // a tag or digest; "" for Ping, Catalog and Tags
}

// parseRoute reads a path. It does not check the repository's name or the reference.
func parseRoute(path string) route {
	switch path {
	case "/v2", "/v2/":
		return route{op: frontend.Ping}
	case catalogPath:
		return route{op: frontend.Catalog}
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return route{}
	}
	if repository, ok := strings.CutSuffix(rest, "/tags/list"); ok && repository != "" {
		return route{op: frontend.Tags, repository: repository}
	}
	rest, reference := cutLast(rest)
	repository, kind := cutLast(rest)
	ops := map[string]frontend.Op{"manifests": frontend.Manifest, "blobs": frontend.Blob, "referrers": frontend.Referrers}
	if op := ops[kind]; op != 0 && repository != "" && reference != "" {
		return route{op: op, repository: repository, reference: reference}
	}
	return route{}
}

// cutLast slices s around its last slash.
func cutLast(s string) (before, after string) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i+1:]
}

// action returns the action that a request carries out in its repository.
func (rt route) action(head bool) string {
	switch {
	case rt.op == frontend.Tags:
		return "ecr:ListImages"
	case rt.op == frontend.Blob && head:
		return "ecr:BatchCheckLayerAvailability"
	case rt.op == frontend.Blob:
		return "ecr:GetDownloadUrlForLayer"
	default:
		return "ecr:BatchGetImage"
	}
}
