package ecrtest

import (
	"strings"
	"testing"
)

func TestParseRoute(t *testing.T) {
	for path, want := range map[string]route{
		"/v2":                            {op: Ping},
		"/v2/":                           {op: Ping},
		"/v2/app/manifests/v1":           {op: Manifest, repo: "app", ref: "v1"},
		"/v2/a/b/c/blobs/sha256:0":       {op: Blob, repo: "a/b/c", ref: "sha256:0"},
		"/v2/manifests/tags/list":        {op: Tags, repo: "manifests"},
		"/v2/a/tags/list/manifests/list": {op: Manifest, repo: "a/tags/list", ref: "list"},
		"/v2/_catalog":                   {op: Catalog},
		"/v2/app/referrers/sha256:0":     {op: Referrers, repo: "app", ref: "sha256:0"},
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
		kinds := map[Op]string{Manifest: "manifests", Blob: "blobs", Referrers: "referrers"}
		switch rt.op {
		case 0:
		case Ping:
			if strings.TrimSuffix(path, "/") != "/v2" {
				t.Errorf("%q is not a ping", path)
			}
		case Catalog:
			if path != "/v2/_catalog" {
				t.Errorf("%q is not the catalog", path)
			}
		case Tags:
			if path != "/v2/"+rt.repo+"/tags/list" {
				t.Errorf("%q became %+v", path, rt)
			}
		default:
			if path != "/v2/"+rt.repo+"/"+kinds[rt.op]+"/"+rt.ref || strings.Contains(rt.ref, "/") {
				t.Errorf("%q became %+v", path, rt)
			}
		}
	})
}

func FuzzSelectRange(f *testing.F) {
	for _, header := range []string{"", "bytes=0-0", "bytes=5-", "bytes=-5", "bytes=5-1", "bytes=0-1,2-3", "bytes=-0", "bytes=+1-2"} {
		f.Add(header, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		start, n, status := selectRange(header, size)
		switch status {
		case 200:
			if start != 0 || n != size {
				t.Errorf("everything is %d bytes from %d", n, start)
			}
		case 206:
			if start < 0 || n <= 0 || start > size-n {
				t.Errorf("%d bytes from %d are not in %d", n, start, size)
			}
		case 416:
			if n != 0 {
				t.Errorf("%d bytes in a range that is refused", n)
			}
		default:
			t.Errorf("status %d", status)
		}
	})
}
