package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestRefusalSaysWhy(t *testing.T) {
	r := newRig(t, settings{fallback: new(""), forbidden: "team/secret"})
	for path, want := range map[string]string{
		"/v2/team/app/manifests/v1?ns=quay.io":            "quay.io is not among this Larder's upstreams",
		"/v2/quay.io/team/app/manifests/v1":               "quay.io is not among this Larder's upstreams",
		"/v2/team/app/manifests/v1":                       "no registry is named, and default_upstream is empty",
		"/v2/team/secret/manifests/v1?ns=" + r.ecr.Host(): "allow of upstream " + r.ecr.Host() + " leaves out team/secret",
	} {
		a := r.get(path)
		wantError(t, a, http.StatusNotFound, "NAME_UNKNOWN")
		if !strings.Contains(string(a.body), want) {
			t.Errorf("%s: %s, want %q", path, a.body, want)
		}
	}
	r.server.Close() // a request is counted when it is over
	got := make(map[string]int64)
	for _, refusal := range r.proxy.Refusals() {
		if refusal.Last.IsZero() || refusal.Text == "" {
			t.Errorf("%+v", refusal)
		}
		got[refusal.Registry+" "+refusal.Reason] = refusal.Requests
	}
	if want := fmt.Sprint(map[string]int64{"quay.io not configured": 2, " not named": 1, r.ecr.Host() + " not allowed": 1}); fmt.Sprint(got) != want {
		t.Errorf("refusals: %v, want %v", got, want)
	}
}

// A repository's name may begin like a host.
func TestRepositoryNamedLikeAHostIsOneOfTheDefaultUpstream(t *testing.T) {
	r := newRig(t, settings{forbidden: "team/secret"})
	const repo = "quay.io/team/app"
	desc := r.addBlob(repo, ecrtest.Random(1, 1000))
	wantStatus(t, r.get(blobPath(repo, desc.Digest)), http.StatusOK)
	wantError(t, r.get("/v2/"+r.ecr.Host()+"/team/secret/manifests/v1"), http.StatusNotFound, "NAME_UNKNOWN")
}

// A client can ask for any number of registries.
func TestRefusalsAreBounded(t *testing.T) {
	r := newRig(t, settings{})
	for i := range 200 {
		wantStatus(t, r.get(fmt.Sprintf("/v2/team/app/manifests/v1?ns=registry-%d.example", i)), http.StatusNotFound)
	}
	r.server.Close()
	all := r.proxy.Refusals()
	if len(all) != 65 {
		t.Fatalf("%d registries are told apart", len(all))
	}
	var sum, other int64
	for _, refusal := range all {
		sum += refusal.Requests
		if refusal.Registry == "other" {
			other = refusal.Requests
		}
	}
	if sum != 200 || other != 136 {
		t.Errorf("%d requests, %d for others", sum, other)
	}
}
