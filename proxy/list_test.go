package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// tagsOf reads a page of tags.
func tagsOf(t *testing.T, a answer, name string) []string {
	t.Helper()
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "Content-Type", "application/json")
	var list struct {
		Name string
		Tags []string
	}
	if err := json.Unmarshal(a.body, &list); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	if list.Name != name || list.Tags == nil {
		t.Errorf("%s: want the name %q, and an array", a.body, name)
	}
	return list.Tags
}

// next returns the path and query of a Link. Clients follow it only if it leads to the
// same host.
func next(t *testing.T, a answer) string {
	t.Helper()
	link := a.Header.Get("Link")
	if link == "" {
		return ""
	}
	target, ok := strings.CutPrefix(link, "<")
	target, found := strings.CutSuffix(target, `>; rel="next"`)
	u, err := url.Parse(target)
	if !ok || !found || err != nil || u.Host != "" || u.Path != a.Request.URL.Path {
		t.Fatalf("Link: %q does not lead to the next page of %s", link, a.Request.URL.Path)
	}
	return u.RequestURI()
}

func TestTagsArePagedInEveryAddressForm(t *testing.T) {
	r := newRig(t, settings{})
	var all []string
	for i := range 7 {
		tag := fmt.Sprintf("v%d", i)
		all = append(all, tag)
		r.addImage(tag, ecrtest.Random(uint64(i), 10))
	}
	for _, form := range []struct{ name, query string }{
		{app, ""}, {r.ecr.Host() + "/" + app, ""}, {app, "&ns=" + r.ecr.Host()},
	} {
		var got []string
		pages := 0
		for path := "/v2/" + form.name + "/tags/list?n=3" + form.query; path != ""; pages++ {
			a := r.get(path)
			got = append(got, tagsOf(t, a, form.name)...)
			path = next(t, a)
			if path != "" && strings.Contains(path, "ns=") != (form.query != "") {
				t.Errorf("the next page of %q is %q", form.query, path)
			}
		}
		if diff := cmp.Diff(all, got); diff != "" || pages != 3 {
			t.Errorf("%d pages (-want +got):\n%s", pages, diff)
		}
	}
	whole := r.get("/v2/" + app + "/tags/list")
	if diff := cmp.Diff(all, tagsOf(t, whole, app)); diff != "" {
		t.Errorf("without n (-want +got):\n%s", diff)
	}
	wantHeader(t, whole, "X-Cache", "MISS")
	wantStatus(t, r.get("/v2/"+app+"/tags/list?n=100000"), http.StatusOK) // ECR refuses more than 1,000
}

func TestPageOfZeroTagsIsEmpty(t *testing.T) {
	r := newRig(t, settings{})
	r.addImage("v1", ecrtest.Random(1, 10))
	a := r.get("/v2/" + app + "/tags/list?n=0")
	if got := tagsOf(t, a, app); len(got) != 0 {
		t.Errorf("%q", got)
	}
	wantHeader(t, a, "Link", "")
}

func TestCachedTagsAreListedWhileTheUpstreamIsDead(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	for _, tag := range []string{"b", "a", "d", "c", "never-pulled"} {
		r.addImage(tag, ecrtest.Random(1, 10))
	}
	for _, tag := range []string{"d", "a", "c", "b"} {
		wantStatus(t, r.get(manifestPath(app, tag)), http.StatusOK)
	}
	r.ecr.Stop()
	whole := r.get("/v2/" + app + "/tags/list")
	wantHeader(t, whole, "X-Cache", "STALE")
	if diff := cmp.Diff([]string{"a", "b", "c", "d"}, tagsOf(t, whole, app)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	first := r.get("/v2/" + app + "/tags/list?n=3&ns=" + r.ecr.Host())
	second := r.get(next(t, first))
	if diff := cmp.Diff([]string{"a", "b", "c"}, tagsOf(t, first, app)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"d"}, tagsOf(t, second, app)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantHeader(t, second, "Link", "")
	wantError(t, r.get("/v2/no/such/tags/list"), http.StatusServiceUnavailable, "UNAVAILABLE")
}

func TestDeniedListOfTagsIsNotServedFromTheCache(t *testing.T) {
	r := newRig(t, settings{})
	r.addImage("v1", ecrtest.Random(1, 10))
	wantStatus(t, r.get(manifestPath(app, "v1")), http.StatusOK)
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.Tags, Status: http.StatusForbidden})
	wantError(t, r.get("/v2/"+app+"/tags/list?ns="+r.ecr.Host()), http.StatusForbidden, "DENIED")
}

func TestReferrersArePassedThrough(t *testing.T) {
	r := newRig(t, settings{})
	image, err := r.ecr.AddImage(app, "v1", ecrtest.Image{
		Layers:   []ecrtest.Layer{{Content: ecrtest.Random(1, 10)}},
		Artifact: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	path := "/v2/" + app + "/referrers/" + image.Root.Digest.String()
	for query, want := range map[string]struct {
		filters string
		n       int
	}{
		"": {"", 1},
		"?artifactType=" + url.QueryEscape(ecrtest.ArtifactType): {"artifactType", 1},
		"?artifactType=other": {"artifactType", 0},
	} {
		a := r.get(path + query)
		wantStatus(t, a, http.StatusOK)
		wantHeader(t, a, "Content-Type", ocispec.MediaTypeImageIndex)
		wantHeader(t, a, "Oci-Filters-Applied", want.filters)
		var index ocispec.Index
		if err := json.Unmarshal(a.body, &index); err != nil || len(index.Manifests) != want.n {
			t.Errorf("%s: %s, %v; want %d referrers", query, a.body, err, want.n)
		}
		wantSameHeaders(t, a, r.head(path+query))
	}
}

func TestLinkOfReferrersLeadsToLarder(t *testing.T) {
	r := newRig(t, settings{})
	r.ecr.Inject(ecrtest.Fault{
		On: ecrtest.Referrers, Status: http.StatusOK,
		Body: `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
		Header: http.Header{"Link": {
			`<https://elsewhere.example/v2/x/referrers/y?nextToken=a%2Fb&artifactType=c>; rel="next"`,
		}},
	})
	a := r.get("/v2/" + app + "/referrers/" + digestOfNothing + "?artifactType=c&ns=" + r.ecr.Host())
	wantStatus(t, a, http.StatusOK)
	u, err := url.Parse(next(t, a))
	if err != nil {
		t.Fatal(err)
	}
	want := url.Values{"ns": {r.ecr.Host()}, "nextToken": {"a/b"}, "artifactType": {"c"}}
	if diff := cmp.Diff(want, u.Query()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Clients that get a 404 ask by tag. From Larder they would not do so for a 503, though the
// upstream's own answer makes them.
func TestReferrersWithoutTheAPIAreNotFound(t *testing.T) {
	const index = ocispec.MediaTypeImageIndex
	for name, fault := range map[string]ecrtest.Fault{
		"404":                       {Status: http.StatusNotFound, Body: "404 page not found"},
		"400":                       {Status: http.StatusBadRequest},
		"405":                       {Status: http.StatusMethodNotAllowed},
		"406":                       {Status: http.StatusNotAcceptable},
		"418":                       {Status: http.StatusTeapot},
		"501":                       {Status: http.StatusNotImplemented},
		"a login page":              {Status: http.StatusOK, Body: "<html>Welcome</html>"},
		"no document":               {Status: http.StatusOK, Body: "{}"},
		"null as an index":          {Status: http.StatusOK, Body: "null", Header: http.Header{"Content-Type": {index}}},
		"an image":                  {Status: http.StatusOK, Body: `{"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`},
		"something that says it is": {Status: http.StatusOK, Body: "<html>", Header: http.Header{"Content-Type": {index}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, settings{})
			fault.On = ecrtest.Referrers
			r.ecr.Inject(fault)
			wantError(t, r.get("/v2/"+app+"/referrers/"+digestOfNothing), http.StatusNotFound, "MANIFEST_UNKNOWN")
		})
	}
}

func TestReferrersAreUnavailableOnlyWhileTheUpstreamFails(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable} {
		r := newRig(t, settings{timeout: 2 * time.Second})
		r.ecr.Inject(ecrtest.Fault{On: ecrtest.Referrers, Status: status})
		wantError(t, r.get("/v2/"+app+"/referrers/"+digestOfNothing), http.StatusServiceUnavailable, "UNAVAILABLE")
	}
}

func TestIndexOfReferrersNeedsNoMediaType(t *testing.T) {
	const body = `{"schemaVersion":2,"manifests":[]}`
	r := newRig(t, settings{})
	r.ecr.Inject(ecrtest.Fault{
		On: ecrtest.Referrers, Status: http.StatusOK, Body: body,
		Header: http.Header{"Content-Type": {ocispec.MediaTypeImageIndex + "; charset=utf-8"}},
	})
	a := r.get("/v2/" + app + "/referrers/" + digestOfNothing)
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "Content-Type", ocispec.MediaTypeImageIndex)
	wantBody(t, a, []byte(body))
}
