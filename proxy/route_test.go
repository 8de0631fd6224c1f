package proxy

// White-box: the parser is pure, and fuzzed.

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/name"
)

const (
	hex256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	hex512 = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce" +
		"47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
	sha256 = "sha256:" + hex256
	sha512 = "sha512:" + hex512
)

// specName is the grammar of names in the distribution specification.
var specName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

func TestParseRouteTakesValidPaths(t *testing.T) {
	tests := []struct {
		path, query string
		want        route
	}{
		{"/", "", route{kind: kindRoot}},
		{"/v2/", "", route{kind: kindBase}},
		{"/v2", "", route{kind: kindBase}},
		{"/v2/busybox/manifests/latest", "", route{kind: kindManifest, name: "busybox", reference: "latest"}},
		{"/v2/a/b/c/d/manifests/v1", "", route{kind: kindManifest, name: "a/b/c/d", reference: "v1"}},
		{"/v2/team/app/manifests/" + sha256, "", route{kind: kindManifest, name: "team/app", reference: sha256, digest: sha256}},
		{"/v2/team/app/blobs/" + sha512, "", route{kind: kindBlob, name: "team/app", reference: sha512, digest: sha512}},
		{"/v2/team/app/referrers/" + sha256, "", route{kind: kindReferrers, name: "team/app", reference: sha256, digest: sha256}},
		{"/v2/team/app/tags/list", "n=5", route{kind: kindTags, name: "team/app"}},
		{"/v2/a.b_c__d---e/manifests/v1", "", route{kind: kindManifest, name: "a.b_c__d---e", reference: "v1"}},
		{"/v2/a/manifests/_T.-x", "", route{kind: kindManifest, name: "a", reference: "_T.-x"}},

		// The fixed words may be part of a name.
		{"/v2/manifests/manifests/manifests", "", route{kind: kindManifest, name: "manifests", reference: "manifests"}},
		{"/v2/blobs/manifests/blobs/" + sha256, "", route{kind: kindBlob, name: "blobs/manifests", reference: sha256, digest: sha256}},
		{"/v2/tags/list/tags/list", "", route{kind: kindTags, name: "tags/list"}},
		{"/v2/a/tags/list/manifests/list", "", route{kind: kindManifest, name: "a/tags/list", reference: "list"}},

		// A host may be the first element.
		{"/v2/ghcr.io/a/b/tags/list", "", route{kind: kindTags, name: "ghcr.io/a/b", host: "ghcr.io", rest: "a/b"}},
		{"/v2/localhost/a/tags/list", "", route{kind: kindTags, name: "localhost/a", host: "localhost", rest: "a"}},
		{"/v2/localhost:5000/a/tags/list", "", route{kind: kindTags, host: "localhost:5000", rest: "a"}},
		{"/v2/[::1]:5000/a/tags/list", "", route{kind: kindTags, host: "[::1]:5000", rest: "a"}},
		{"/v2/[fd00::1]/a/tags/list", "", route{kind: kindTags, host: "[fd00::1]", rest: "a"}},
		{"/v2/GHCR.io/a/tags/list", "", route{kind: kindTags, host: "ghcr.io", rest: "a"}},
		{"/v2/ghcr.io/tags/list", "", route{kind: kindTags, name: "ghcr.io"}},

		// A host may be the parameter ns, as containerd sends it.
		{"/v2/a/tags/list", "ns=docker.io", route{kind: kindTags, name: "a", namespace: "docker.io"}},
		{"/v2/a/tags/list", "ns=Docker.IO", route{kind: kindTags, name: "a", namespace: "docker.io"}},
		{"/v2/a/tags/list", "ns=myreg.io%3A5000", route{kind: kindTags, name: "a", namespace: "myreg.io:5000"}},
		{"/v2/a/tags/list", "ns=%5B%3A%3A1%5D%3A5000", route{kind: kindTags, name: "a", namespace: "[::1]:5000"}},
		{"/v2/a/tags/list", "ns=", route{kind: kindTags, name: "a"}},

		{"/v2/" + strings.Repeat("a", 255) + "/tags/list", "", route{kind: kindTags, name: strings.Repeat("a", 255)}},
		{"/v2/a/manifests/" + strings.Repeat("T", 128), "", route{kind: kindManifest, name: "a", reference: strings.Repeat("T", 128)}},
	}
	for _, test := range tests {
		got, err := parseRoute(test.path, parseQuery(t, test.query))
		if err != nil {
			t.Errorf("parseRoute(%q, %q): %v", test.path, test.query, err)
			continue
		}
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(route{})); diff != "" {
			t.Errorf("parseRoute(%q, %q) (-want +got):\n%s", test.path, test.query, diff)
		}
	}
}

func TestParseRouteRefusesInvalidPaths(t *testing.T) {
	tests := []struct {
		path, query string
		want        errcode.ErrorCode
	}{
		{"", "", errcode.ErrorCodeNameUnknown},
		{"/v1/_ping", "", errcode.ErrorCodeNameUnknown},
		{"/v2/_catalog", "", errcode.ErrorCodeNameUnknown},
		{"/v2//", "", errcode.ErrorCodeNameUnknown},
		{"/v2/a", "", errcode.ErrorCodeNameUnknown},
		{"/v2/a/", "", errcode.ErrorCodeNameUnknown},
		{"/v2/a/tags", "", errcode.ErrorCodeNameUnknown},
		{"/v2/a/tags/", "", errcode.ErrorCodeNameUnknown},
		{"/v2/a/tags/list/", "", errcode.ErrorCodeNameUnknown},
		{"/v2/a/tags/other", "", errcode.ErrorCodeNameUnknown},
		{"/v2/manifests/latest", "", errcode.ErrorCodeNameUnknown},
		{"/v2/a/manifests/v1/", "", errcode.ErrorCodeNameUnknown},
		{"/v2/a/blobs/uploads/", "", errcode.ErrorCodeNameUnknown},
		{"/v2/a/Manifests/v1", "", errcode.ErrorCodeNameUnknown},

		{"/v2//manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2//a/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/a//b/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/a//manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/Upper/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/-a/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/a-/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/a..b/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/a___b/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/a-_b/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/../manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/a/../b/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/./a/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/../../etc/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/a b/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/a\x00b/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/a%2fb/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/é/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/localhost:port/a/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/localhost:123456/a/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/::1/a/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/[evil]/a/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/[]/a/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/[abc]:80/a/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/[127.0.0.1]/a/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/[fe80::1%eth0]/a/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/user@host:80/a/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/ghcr.io:443/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/GHCR.io/A/manifests/v1", "", errcode.ErrorCodeNameInvalid},
		{"/v2/" + strings.Repeat("a", 256) + "/manifests/v1", "", errcode.ErrorCodeNameInvalid},

		{"/v2/a/manifests/", "", errcode.ErrorCodeTagInvalid},
		{"/v2/a/manifests/.v1", "", errcode.ErrorCodeTagInvalid},
		{"/v2/a/manifests/-v1", "", errcode.ErrorCodeTagInvalid},
		{"/v2/a/manifests/..", "", errcode.ErrorCodeTagInvalid},
		{"/v2/a/manifests/v 1", "", errcode.ErrorCodeTagInvalid},
		{"/v2/a/manifests/v+1", "", errcode.ErrorCodeTagInvalid},
		{"/v2/a/manifests/" + strings.Repeat("T", 129), "", errcode.ErrorCodeTagInvalid},

		{"/v2/a/blobs/", "", errcode.ErrorCodeDigestInvalid},
		{"/v2/a/blobs/latest", "", errcode.ErrorCodeDigestInvalid},
		{"/v2/a/blobs/" + hex256, "", errcode.ErrorCodeDigestInvalid},
		{"/v2/a/blobs/" + sha256[:70], "", errcode.ErrorCodeDigestInvalid},
		{"/v2/a/blobs/" + sha256 + "0", "", errcode.ErrorCodeDigestInvalid},
		{"/v2/a/blobs/" + strings.ToUpper(sha256), "", errcode.ErrorCodeDigestInvalid},
		{"/v2/a/blobs/sha256:" + strings.ToUpper(hex256), "", errcode.ErrorCodeDigestInvalid},
		{"/v2/a/blobs/sha256:" + strings.Repeat("g", 64), "", errcode.ErrorCodeDigestInvalid},
		{"/v2/a/blobs/sha512:" + hex256, "", errcode.ErrorCodeDigestInvalid},
		{"/v2/a/blobs/sha384:" + hex512[:96], "", errcode.ErrorCodeDigestInvalid},
		{"/v2/a/blobs/sha256:..", "", errcode.ErrorCodeDigestInvalid},
		{"/v2/a/manifests/md5:d41d8cd98f00b204e9800998ecf8427e", "", errcode.ErrorCodeDigestInvalid},
		{"/v2/a/referrers/latest", "", errcode.ErrorCodeDigestInvalid},

		{"/v2/a/manifests/v1", "ns=a%2Fb", errcode.ErrorCodeNameUnknown},
		{"/v2/a/manifests/v1", "ns=user%40host", errcode.ErrorCodeNameUnknown},
		{"/v2/a/manifests/v1", "ns=..", errcode.ErrorCodeNameUnknown},
		{"/v2/a/manifests/v1", "ns=http%3A%2F%2Fhost", errcode.ErrorCodeNameUnknown},
	}
	for _, test := range tests {
		got, err := parseRoute(test.path, parseQuery(t, test.query))
		var detail errcode.Error
		if !errors.As(err, &detail) || detail.Code != test.want {
			t.Errorf("parseRoute(%q, %q) = %+v, %v; want error %v", test.path, test.query, got, err, test.want)
		}
	}
}

// The rest of the program puts parsed values into paths, keys and URLs.
func FuzzParseRoute(f *testing.F) {
	for _, path := range []string{
		"/v2/", "/v2/a/b/manifests/v1", "/v2/a/blobs/" + sha256, "/v2/a/referrers/" + sha512, "/v2/ghcr.io/a/tags/list",
		"/v2/[::1]:5000/a/tags/list", "/v2/a/../b/manifests/..", "/v2//manifests/", "/v2/HOST:1/a.b__c---d/manifests/T",
	} {
		f.Add(path, "myreg.io:5000")
	}
	f.Fuzz(func(t *testing.T, path, ns string) {
		query := url.Values{"ns": {ns}}
		r, err := parseRoute(path, query)
		if err != nil {
			var detail errcode.Error
			if !errors.As(err, &detail) {
				t.Fatalf("the error %v has no code", err)
			}
			return
		}
		if r.kind == kindBase || r.kind == kindRoot {
			return
		}
		for _, repository := range []string{r.name, r.rest} {
			if repository != "" && (len(repository) > name.MaxRepository || !specName.MatchString(repository)) {
				t.Errorf("%q is not a repository", repository)
			}
		}
		if r.name == "" && (r.host == "" || r.rest == "") {
			t.Error("there is no repository")
		}
		for _, s := range []string{r.host, r.namespace, r.name, r.rest, r.reference} {
			if slices.Contains(strings.Split(s, "/"), "..") {
				t.Errorf("%q has .. as an element", s)
			}
		}
		for _, host := range []string{r.host, r.namespace} {
			if u, err := url.Parse("https://" + host); err != nil || u.Host != host || host != strings.ToLower(host) {
				t.Errorf("%q is not a host: %v", host, err)
			}
		}
		if r.digest != "" && r.digest.Validate() != nil {
			t.Errorf("%q is not a digest", r.digest)
		}
		again, err := parseRoute(spell(r), query)
		if r.name == "" {
			again.name = "" // the host was in upper case, so the whole was not a name
		}
		if err != nil || again != r {
			t.Errorf("%q parses as %+v, its own spelling %q as %+v, %v", path, r, spell(r), again, err)
		}
	})
}

// spell writes a route as a path.
func spell(r route) string {
	name := r.name
	if name == "" {
		name = r.host + "/" + r.rest
	}
	switch r.kind {
	case kindManifest, kindBlob, kindReferrers:
		return "/v2/" + name + "/" + string(r.kind) + map[bool]string{true: "s"}[r.kind != kindReferrers] + "/" + r.reference
	}
	return "/v2/" + name + "/tags/list"
}

func parseQuery(t *testing.T, s string) url.Values {
	t.Helper()
	q, err := url.ParseQuery(s)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func BenchmarkParseRoute(b *testing.B) {
	query := url.Values{"ns": {"123456789012.dkr.ecr.us-east-1.amazonaws.com"}}
	path := "/v2/team/service/app/blobs/" + digest.FromString("a layer").String()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseRoute(path, query); err != nil {
			b.Fatal(err)
		}
	}
}
