package distribution

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The tests of this file are white-box, because a route is the input of everything
// else and hostile paths cannot all be sent by an HTTP client.

func TestParseRoute(t *testing.T) {
	for path, want := range map[string]route{
		"/v2":                            {op: frontend.Ping},
		"/v2/":                           {op: frontend.Ping},
		"/v2/app/manifests/v1":           {op: frontend.Manifest, repository: "app", reference: "v1"},
		"/v2/a/b/c/blobs/sha256:0":       {op: frontend.Blob, repository: "a/b/c", reference: "sha256:0"},
		"/v2/manifests/tags/list":        {op: frontend.Tags, repository: "manifests"},
		"/v2/a/tags/list/manifests/list": {op: frontend.Manifest, repository: "a/tags/list", reference: "list"},
		"/v2/_catalog":                   {op: frontend.Catalog},
		"/v2/app/referrers/sha256:0":     {op: frontend.Referrers, repository: "app", reference: "sha256:0"},
		"/v2/app":                        {},
		"/v2/app/manifests/":             {},
		"/v2//manifests/v1":              {},
		"/v2/manifests/v1":               {},
		"/v1/app/manifests/v1":           {},
		"":                               {},
	} {
		if got := parseRoute(path); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
}

func FuzzParseRoute(f *testing.F) {
	for _, path := range []string{"/v2/", "/v2/a/b/manifests/v1", "/v2/a/blobs/sha256:0", "/v2/a/tags/list", "/v2//tags/list"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		rt := parseRoute(path)
		kinds := map[frontend.Op]string{frontend.Manifest: "manifests", frontend.Blob: "blobs", frontend.Referrers: "referrers"}
		switch rt.op {
		case 0:
		case frontend.Ping:
			if strings.TrimSuffix(path, "/") != "/v2" {
				t.Errorf("%q is not a ping", path)
			}
		case frontend.Catalog:
			if path != "/v2/_catalog" {
				t.Errorf("%q is not the catalog", path)
			}
		case frontend.Tags:
			if path != "/v2/"+rt.repository+"/tags/list" {
				t.Errorf("%q became %+v", path, rt)
			}
		default:
			if path != "/v2/"+rt.repository+"/"+kinds[rt.op]+"/"+rt.reference || strings.Contains(rt.reference, "/") {
				t.Errorf("%q became %+v", path, rt)
			}
		}
	})
}
