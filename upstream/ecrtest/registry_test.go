package ecrtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

const absent = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func errorBody(code, message string) string {
	return fmt.Sprintf(`{"errors":[{"code":"%s","message":"%s"}]}`, code, message)
}

func TestManifestIsServedAsStored(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	raw := []byte(`{"schemaVersion": 2,  "odd": "spacing"}`)
	desc, err := server.AddManifest("team/app", "v1", "application/vnd.docker.distribution.manifest.v2+json", raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"v1", desc.Digest.String()} {
		a := c.registry(http.MethodGet, "/v2/team/app/manifests/"+ref)
		wantStatus(t, a, http.StatusOK)
		wantBody(t, a, string(raw))
		wantHeader(t, a, "Content-Type", desc.MediaType)
		if _, ok := a.Header["Docker-Content-Digest"]; ok {
			t.Error("a GET has Docker-Content-Digest; at ECR it has none")
		}
		a = c.registry(http.MethodHead, "/v2/team/app/manifests/"+ref)
		wantStatus(t, a, http.StatusOK)
		wantBody(t, a, "")
		wantHeader(t, a, "Content-Type", desc.MediaType)
		wantHeader(t, a, "Content-Length", fmt.Sprint(len(raw)))
		wantHeader(t, a, "Docker-Content-Digest", desc.Digest.String())
		if got, ok := a.Header["Sizes"]; !ok || got[0] != "" {
			t.Errorf("a HEAD has Sizes %q, want an empty one", got)
		}
	}
}

func TestTagMoves(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	for _, raw := range []string{`{"first":1}`, `{"second":2}`} {
		if _, err := server.AddManifest("team/app", "latest", ocispec.MediaTypeImageManifest, []byte(raw)); err != nil {
			t.Fatal(err)
		}
		wantBody(t, c.registry(http.MethodGet, "/v2/team/app/manifests/latest"), raw)
	}
}

func TestRegistryErrorsAreThoseOfECR(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	if _, err := server.AddBlob("other", ecrtest.Bytes(nil)); err != nil {
		t.Fatal(err)
	}
	c.addBlob(ecrtest.Bytes([]byte("known")))
	noRepo := errorBody("NAME_UNKNOWN",
		"The repository with name 'no/such' does not exist in the registry with id '123456789012'")
	noImage := errorBody("MANIFEST_UNKNOWN", "Requested image not found")
	tests := []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/v2/no/such/manifests/latest", 404, noRepo},
		{"GET", "/v2/no/such/blobs/" + absent, 404, noRepo},
		{"GET", "/v2/no/such/tags/list", 404, noRepo},
		{"GET", "/v2/team/app/manifests/latest", 404, noImage},
		{"GET", "/v2/team/app/manifests/" + absent, 404, noImage},
		{"HEAD", "/v2/team/app/manifests/latest", 404, ""},
		{"HEAD", "/v2/team/app/manifests/-no-tag", 400, ""},
		{"GET", "/v2/team/app/blobs/" + absent, 404, errorBody("BLOB_UNKNOWN", "blob unknown to registry")},
		{"POST", "/v2/team/app/blobs/uploads/", 405, errorBody("UNSUPPORTED", "The operation is unsupported.")},
		{"GET", "/v2/team/app/referrers/none", 400, errorBody("DIGEST_INVALID", "invalid digest")},
		{"GET", "/v2/team/app", 404, ""},
		{"GET", "/v1/", 404, ""},
		{"GET", "/v2/", 200, ""},
	}
	for _, test := range tests {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			a := c.registry(test.method, test.path)
			wantStatus(t, a, test.status)
			wantBody(t, a, test.body)
		})
	}
}

func TestBlobHeadReportsItsSize(t *testing.T) {
	_, c := start(t, ecrtest.Options{})
	path := c.addBlob(ecrtest.Random(1, 12345))
	a := c.registry(http.MethodHead, path)
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "Content-Length", "12345")
}

func TestTagListHasPages(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	var want []string
	for i := range 250 {
		tag := fmt.Sprintf("v%03d", i)
		want = append(want, tag)
		if _, err := server.AddManifest("team/app", tag, ocispec.MediaTypeImageManifest, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	link := regexp.MustCompile(`^<(http://[^>]+)>; rel="next"$`)
	for query, pages := range map[string]int{"": 3, "?n=100": 3, "?n=250": 1, "?n=1000": 1, "?n=125": 2} {
		var got []string
		path := "/v2/team/app/tags/list" + query
		for n := 1; ; n++ {
			a := c.registry(http.MethodGet, path)
			wantStatus(t, a, http.StatusOK)
			wantHeader(t, a, "Content-Type", "text/plain; charset=utf-8")
			var list struct {
				Name string
				Tags []string
			}
			if err := json.Unmarshal([]byte(a.body), &list); err != nil {
				t.Fatal(err)
			}
			got = append(got, list.Tags...)
			if a.Header.Get("Link") == "" {
				if n != pages {
					t.Errorf("%q: %d pages, want %d", query, n, pages)
				}
				break
			}
			next := link.FindStringSubmatch(a.Header.Get("Link"))
			if next == nil {
				t.Fatalf("Link: %s, want an absolute URL", a.Header.Get("Link"))
			}
			u, err := url.Parse(next[1])
			if err != nil {
				t.Fatal(err)
			}
			if last := u.Query().Get("last"); strings.HasPrefix(last, "v") {
				t.Errorf("last=%s tells the tag, which is opaque at ECR", last)
			}
			path = strings.TrimPrefix(next[1], server.Endpoint)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: tags (-want +got):\n%s", query, diff)
		}
	}
	a := c.registry(http.MethodGet, "/v2/team/app/tags/list?n=1001")
	wantStatus(t, a, http.StatusMethodNotAllowed)
	wantBody(t, a, errorBody("UNSUPPORTED", "Invalid parameter at 'maxResults' failed to satisfy constraint: "+
		"'Member must have value less than or equal to 1000'"))
}

func TestReferrersListArtifactsOfTheSubject(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	added, err := server.AddImage("team/app", "v1", ecrtest.Image{Artifact: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []ocispec.Descriptor{added.Artifact}
	want[0].ArtifactType = ecrtest.ArtifactType
	for _, test := range []struct {
		ref, filtered string
		want          []ocispec.Descriptor
	}{
		{added.Root.Digest.String(), "", want},
		{added.Root.Digest.String() + "?artifactType=" + ecrtest.ArtifactType, "artifactType", want},
		{added.Root.Digest.String() + "?artifactType=other", "artifactType", []ocispec.Descriptor{}},
		{absent, "", []ocispec.Descriptor{}},
	} {
		a := c.registry(http.MethodGet, "/v2/team/app/referrers/"+test.ref)
		wantStatus(t, a, http.StatusOK)
		wantHeader(t, a, "Content-Type", ocispec.MediaTypeImageIndex)
		wantHeader(t, a, "OCI-Filters-Applied", test.filtered)
		var index ocispec.Index
		if err := json.Unmarshal([]byte(a.body), &index); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, index.Manifests); diff != "" {
			t.Errorf("referrers of %s (-want +got):\n%s", test.ref, diff)
		}
	}
}

func TestAddingRefusesWhatECRRefuses(t *testing.T) {
	server := ecrtest.New(ecrtest.Options{})
	for name, add := range map[string]func() error{
		"repository": func() error { _, err := server.AddBlob("Team/App", ecrtest.Bytes(nil)); return err },
		"manifest's": func() error { _, err := server.AddManifest("a//b", "", "", nil); return err },
		"tag":        func() error { _, err := server.AddManifest("app", ":", "", nil); return err },
		"too large":  func() error { _, err := server.AddManifest("app", "", "", make([]byte, 4<<20+1)); return err },
	} {
		if add() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAddImageAddsEveryPart(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	shared := ecrtest.TarLayer("opt/data", 1, 1000)
	added, err := server.AddImage("team/app", "v1", ecrtest.Image{
		Layers:    []ecrtest.Layer{{Content: shared}, {Content: shared}},
		Platforms: []string{"linux/amd64", "linux/arm64"},
		Cmd:       []string{"/bin/sh"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(added.Manifests) != 2 || len(added.Blobs) != 3 {
		t.Errorf("%d manifests and %d blobs, want 2 and 3", len(added.Manifests), len(added.Blobs))
	}
	var size int64
	for _, b := range added.Blobs {
		size += b.Size
		a := c.get(c.signedURL("/v2/team/app/blobs/" + b.Digest.String()))
		wantStatus(t, a, http.StatusOK)
		if digest.FromString(a.body) != b.Digest || int64(len(a.body)) != b.Size {
			t.Errorf("the content of blob %s has another digest or size", b.Digest)
		}
	}
	if size != added.Size || server.Stats().Bytes() != size {
		t.Errorf("blobs have %d bytes, Size is %d, and %d were sent", size, added.Size, server.Stats().Bytes())
	}
}

func TestOldRegistryListsReferrersUnderATag(t *testing.T) {
	server, c := start(t, ecrtest.Options{NoReferrers: true})
	added, err := server.AddImage("team/app", "v1", ecrtest.Image{Artifact: true})
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, c.registry(http.MethodGet, "/v2/team/app/referrers/"+added.Root.Digest.String()), http.StatusNotFound)
	a := c.registry(http.MethodGet, "/v2/team/app/manifests/sha256-"+added.Root.Digest.Encoded())
	wantStatus(t, a, http.StatusOK)
	var index ocispec.Index
	if err := json.Unmarshal([]byte(a.body), &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 1 || index.Manifests[0].Digest != added.Artifact.Digest {
		t.Errorf("the tag lists %v", index.Manifests)
	}
}

func TestCatalogListsRepositories(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	for _, repo := range []string{"b", "a/b", "a"} {
		if _, err := server.AddBlob(repo, ecrtest.Bytes(nil)); err != nil {
			t.Fatal(err)
		}
	}
	a := c.registry(http.MethodGet, "/v2/_catalog?n=2")
	wantStatus(t, a, http.StatusOK)
	wantBody(t, a, `{"repositories":["a","a/b"]}`)
	next, _, _ := strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"+server.Endpoint), ">")
	a = c.registry(http.MethodGet, next)
	wantBody(t, a, `{"repositories":["b"]}`)
	wantHeader(t, a, "Link", "")
	key := server.AWS().AddUser(ownUser, ecrtest.Policy{ecrtest.Allow(ecrtest.PullActions()...)})
	c.password = tokenOf(t, sdk(t, server, key.Environment()))
	wantStatus(t, c.registry(http.MethodGet, "/v2/_catalog"), http.StatusForbidden)
}
