package proxy_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestAllFormsOfAddressReachTheSameContent(t *testing.T) {
	r := newRig(t, settings{})
	layer := ecrtest.Random(1, 10_000)
	image := r.addImage("v1", layer)
	content, host := bytesOf(t, layer), r.ecr.Host()
	forms := []struct{ name, prefix, query string }{
		{"default", "/v2/" + app, ""},
		{"prefix", "/v2/" + host + "/" + app, ""},
		{"prefix in upper case", "/v2/" + strings.ToUpper(host) + "/" + app, ""},
		{"ns", "/v2/" + app, "?ns=" + host},
		{"ns in upper case", "/v2/" + app, "?ns=" + strings.ToUpper(host)},
		{"both", "/v2/" + host + "/" + app, "?ns=" + host},
	}
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			tag := r.get(form.prefix + "/manifests/v1" + form.query)
			wantStatus(t, tag, http.StatusOK)
			wantHeader(t, tag, "Docker-Content-Digest", image.Root.Digest.String())
			wantHeader(t, tag, "Content-Type", image.Root.MediaType)
			byDigest := r.get(form.prefix + "/manifests/" + image.Root.Digest.String() + form.query)
			wantStatus(t, byDigest, http.StatusOK)
			wantBody(t, byDigest, tag.body)
			blob := r.get(form.prefix + "/blobs/" + image.Blobs[0].Digest.String() + form.query)
			wantStatus(t, blob, http.StatusOK)
			wantBody(t, blob, content)

			namespace := ""
			if form.query != "" {
				namespace = host
			}
			for _, a := range []answer{tag, byDigest, blob} {
				wantHeader(t, a, "Oci-Namespace", namespace)
			}
		})
	}
	if got := r.ecr.Stats().Blobs[image.Blobs[0].Digest].Bytes; got != layer.Size() {
		t.Errorf("%d bytes were fetched of a layer of %d", got, layer.Size())
	}
}

// With ns, the whole path is the repository, even if it begins with another host: ECR
// names the repositories of its pull-through rules like this.
func TestNamespaceHasPriorityOverPathPrefix(t *testing.T) {
	const hub = "docker.io"
	r := newRig(t, settings{also: hub})
	a := r.get("/v2/" + hub + "/" + app + "/tags/list?ns=" + r.ecr.Host())
	wantError(t, a, http.StatusNotFound, "NAME_UNKNOWN")
	if !strings.Contains(string(a.body), hub+"/"+app) {
		t.Errorf("the upstream was not asked for the whole path as a name: %s", a.body)
	}
}

func TestHostsOfOneRegistryShareItsContent(t *testing.T) {
	r := newRig(t, settings{also: "docker.io"})
	layer := ecrtest.Random(1, 10_000)
	image := r.addImage("v1", layer)
	dgst := image.Blobs[0].Digest
	for _, host := range []string{"docker.io", "index.docker.io", "registry-1.docker.io", "docker.io:443", "Registry-1.Docker.io:443"} {
		for _, form := range []struct{ prefix, query string }{{"/v2/" + app, "?ns=" + host}, {"/v2/" + host + "/" + app, ""}} {
			tag := r.get(form.prefix + "/manifests/v1" + form.query)
			wantStatus(t, tag, http.StatusOK)
			wantHeader(t, tag, "Docker-Content-Digest", image.Root.Digest.String())
			wantStatus(t, r.get(form.prefix+"/blobs/"+dgst.String()+form.query), http.StatusOK)
		}
	}
	if got := r.ecr.Stats().Blobs[dgst].Bytes; got != layer.Size() {
		t.Errorf("%d bytes were fetched of a layer of %d", got, layer.Size())
	}
}

func TestBareNamesGoToTheDefaultUpstream(t *testing.T) {
	const hub = "docker.io"
	r := newRig(t, settings{fallback: new(hub), also: hub})
	for _, name := range []string{"library/busybox", "someone/app", "ghcr.io/someone/app"} {
		r.addBlob(name, ecrtest.Random(1, 10))
	}
	for _, name := range []string{"library/busybox", "busybox", "someone/app"} {
		wantStatus(t, r.get("/v2/"+name+"/tags/list"), http.StatusOK)
		wantStatus(t, r.get("/v2/"+name+"/tags/list?ns="+hub), http.StatusOK)
		wantStatus(t, r.get("/v2/"+hub+"/"+name+"/tags/list"), http.StatusOK)
	}
	// Docker Hub has no such repositories. This fake has one.
	wantError(t, r.get("/v2/ghcr.io/someone/app/tags/list"), http.StatusNotFound, "NAME_UNKNOWN")
}

func TestShortNamesAreCompletedOnlyForDockerHub(t *testing.T) {
	r := newRig(t, settings{})
	r.addBlob("busybox", ecrtest.Random(1, 10))
	var list struct{ Name string }
	a := r.get("/v2/busybox/tags/list")
	if err := json.Unmarshal(a.body, &list); err != nil || list.Name != "busybox" {
		t.Errorf("asked for busybox and got %q, %v", a.body, err)
	}
}

func TestUnknownUpstreamsAreNeverDialled(t *testing.T) {
	trap := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("dialled: %s %s", r.Method, r.URL)
	}))
	defer trap.Close()
	trapHost := trap.Listener.Addr().String()
	r := newRig(t, settings{fallback: new("")})
	for _, host := range []string{trapHost, "169.254.169.254", "localhost:1", "[::1]:80", "docker.io", "evil.example"} {
		for _, path := range []string{
			"/v2/team/app/manifests/v1?ns=" + url.QueryEscape(host),
			"/v2/team/app/tags/list?ns=" + url.QueryEscape(host),
			blobPath("team/app", digestOfNothing) + "?ns=" + url.QueryEscape(host),
			"/v2/" + host + "/team/app/manifests/v1",
			blobPath(host+"/team/app", digestOfNothing),
			"/v2/" + host + "/team/app/referrers/" + digestOfNothing,
		} {
			wantError(t, r.get(path), http.StatusNotFound, "NAME_UNKNOWN")
		}
	}
	wantError(t, r.get("/v2/team/app/manifests/v1"), http.StatusNotFound, "NAME_UNKNOWN")
	if got := r.ecr.Stats().Requests; len(got) != 0 {
		t.Errorf("the configured upstream was asked too: %v", got)
	}
	wantStatus(t, r.get("/v2/"), http.StatusOK)
}

const digestOfNothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestWritesAreRefusedEverywhere(t *testing.T) {
	r := newRig(t, settings{})
	for _, path := range []string{
		"/v2/", manifestPath(app, "v1"), manifestPath(app, digestOfNothing), blobPath(app, digestOfNothing),
		"/v2/" + app + "/blobs/uploads/", "/v2/" + app + "/blobs/uploads/5f9a", "/v2/" + app + "/tags/list",
		"/v2/unknown.example/app/blobs/uploads/", "/nothing/here",
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, "MKCOL"} {
			a := r.ask(method, path)
			wantError(t, a, http.StatusMethodNotAllowed, "UNSUPPORTED")
			wantHeader(t, a, "Allow", "GET, HEAD")
		}
	}
	if got := r.ecr.Stats().Requests; len(got) != 0 {
		t.Errorf("the upstream was asked: %v", got)
	}
}

// The handler gets paths that are decoded and not cleaned.
func TestPathsThatLeadUpwardsAreRefused(t *testing.T) {
	r := newRig(t, settings{})
	for _, path := range []string{
		"/v2/team/../app/manifests/v1", "/v2/team/%2e%2e/app/manifests/v1", "/v2/%2e%2e/%2e%2e/etc/manifests/passwd",
		"/v2/..%2f..%2fetc/manifests/passwd", "/v2/team%5c..%5capp/manifests/v1", "/v2/team/app%00/manifests/v1",
		"/v2/.%2e/manifests/v1", "/v2/team/app/manifests/%2e%2e", "/v2/team/app/blobs/sha256:..%2f..%2fx",
	} {
		a := r.get(path)
		if a.StatusCode != http.StatusBadRequest && a.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: %s", path, a.Status)
		}
	}
	if got := r.ecr.Stats().Requests; len(got) != 0 {
		t.Errorf("the upstream was asked: %v", got)
	}
}

func TestBaseNeedsNoUpstream(t *testing.T) {
	r := newRig(t, settings{})
	r.ecr.Stop()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		a := r.ask(method, "/v2/")
		wantStatus(t, a, http.StatusOK)
		wantHeader(t, a, "Docker-Distribution-Api-Version", "registry/2.0")
		wantHeader(t, a, "Content-Type", "application/json")
		wantHeader(t, a, "Content-Length", "2")
	}
}

// wantError checks an error's status, and its body against the form of the
// specification. The response to a HEAD has none.
func wantError(t *testing.T, a answer, status int, code string) {
	t.Helper()
	wantStatus(t, a, status)
	wantHeader(t, a, "Www-Authenticate", "")
	wantHeader(t, a, "Docker-Content-Digest", "")
	wantHeader(t, a, "Content-Type", "application/json")
	if !slices.Contains([]string{"HIT", "MISS", "STALE", "BYPASS"}, a.Header.Get("X-Cache")) {
		t.Errorf("%s %s: X-Cache: %q", a.Request.Method, a.Request.URL, a.Header.Get("X-Cache"))
	}
	if a.Request.Method == http.MethodHead {
		wantBody(t, a, nil)
		return
	}
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(a.body, &doc); err != nil || len(doc.Errors) != 1 {
		t.Errorf("%s %s: the body is not one error: %q, %v", a.Request.Method, a.Request.URL, a.body, err)
		return
	}
	if got := doc.Errors[0]; got.Code != code || got.Message == "" {
		t.Errorf("%s %s: code %s (%q), want %s", a.Request.Method, a.Request.URL, got.Code, got.Message, code)
	}
}
