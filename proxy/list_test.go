package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
