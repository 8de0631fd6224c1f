package ecrtest_test

import (
	"errors"
	"io/fs"
	"net/http"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestRemovedManifestLosesItsTagsAndReferrersEntry(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	added, err := server.AddImage("team/app", "v1", ecrtest.Image{Artifact: true})
	if err != nil {
		t.Fatal(err)
	}
	c.login()
	manifest := func(reference string) answer { return c.registry(http.MethodGet, "/v2/team/app/manifests/"+reference) }
	wantStatus(t, manifest("v1"), http.StatusOK)
	if err := server.RemoveManifest("team/app", added.Artifact.Digest); err != nil {
		t.Fatal(err)
	}
	wantBody(t, c.registry(http.MethodGet, "/v2/team/app/referrers/"+added.Root.Digest.String()),
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	wantStatus(t, manifest("v1"), http.StatusOK)
	if err := server.RemoveManifest("team/app", added.Root.Digest); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, manifest("v1"), http.StatusNotFound)
	wantStatus(t, manifest(added.Root.Digest.String()), http.StatusNotFound)
	for _, repo := range []string{"team/app", "team/none"} {
		if err := server.RemoveManifest(repo, added.Root.Digest); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("removing it again from %s: %v", repo, err)
		}
	}
}
