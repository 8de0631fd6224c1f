package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestRecentRequestsAndFailuresAreKept(t *testing.T) {
	r := newRig(t, settings{})
	added := r.addImage("v1", ecrtest.Random(1, 1000))
	wantStatus(t, r.get(manifestPath(app, "v1"), "User-Agent", "containerd/2.1.4"), http.StatusOK)
	wantStatus(t, r.get(manifestPath(app, "v1"), "User-Agent", strings.Repeat("x", 500)), http.StatusOK)
	wantStatus(t, r.get("/v2/team/app/manifests/v1?ns=quay.io", "User-Agent", "podman"), http.StatusNotFound)
	wantStatus(t, r.get("/v2/"), http.StatusOK)
	r.server.Close() // a request is counted when it is over
	got := r.proxy.Recent()
	if len(got.Requests) != 3 || len(got.Failures) != 1 {
		t.Fatalf("%d requests, %d failures: %+v", len(got.Requests), len(got.Failures), got)
	}
	first, second := got.Requests[2], got.Requests[1]
	if first.Agent != "containerd/2.1.4" || first.Method != http.MethodGet || first.Upstream != r.ecr.Host() || first.Repository != app || first.Reference != "v1" ||
		first.Status != http.StatusOK || first.Bytes != added.Root.Size || first.Cache != "MISS" || first.Error != "" || first.At.IsZero() || first.Took <= 0 || first.Client == "" {
		t.Errorf("%+v", first)
	}
	if second.Cache != "HIT" || len(second.Agent) > 64 {
		t.Errorf("%+v", second)
	}
	if failure := got.Failures[0]; failure != got.Requests[0] || failure.Status != http.StatusNotFound || failure.Error == "" ||
		!strings.Contains(failure.Repository, "/v2/team/app/manifests/v1") || !strings.Contains(failure.Error, "quay.io is not among this Larder's upstreams") {
		t.Errorf("%+v", failure)
	}
}

func TestRecentRequestsAreBounded(t *testing.T) {
	r := newRig(t, settings{})
	for i := range 120 {
		r.get(fmt.Sprintf("/v2/team/app%d/manifests/v1?ns=quay.io", i))
	}
	r.server.Close()
	got := r.proxy.Recent()
	if len(got.Requests) != 50 || len(got.Failures) != 20 {
		t.Fatalf("%d requests, %d failures", len(got.Requests), len(got.Failures))
	}
	for i, request := range got.Requests {
		if want := fmt.Sprintf("/team/app%d/", 119-i); !strings.Contains(request.Repository, want) {
			t.Errorf("request %d is for %s, want %s", i, request.Repository, want)
		}
	}
}

func TestRootNamesTheStatusPage(t *testing.T) {
	r := newRig(t, settings{statusPage: "http://127.0.0.1:5001/"})
	a := r.get("/")
	wantStatus(t, a, http.StatusOK)
	if got := string(a.body); !strings.Contains(got, "This is Larder") || !strings.Contains(got, "http://127.0.0.1:5001/") || a.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%q, %v", got, a.Header)
	}
}
