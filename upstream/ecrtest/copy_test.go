package ecrtest_test

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// image returns an image of two platforms with an artifact.
func image() ecrtest.Image {
	return ecrtest.Image{
		Layers:    []ecrtest.Layer{{Content: ecrtest.TarLayer("data", 1, 5000)}},
		Platforms: []string{"linux/amd64", "linux/arm64"},
		Artifact:  true,
	}
}

// wantImage checks that all parts of an image can be pulled.
func wantImage(t *testing.T, c *client, repo, ref string, want *ecrtest.Added) {
	t.Helper()
	a := c.registry(http.MethodHead, "/v2/"+repo+"/manifests/"+ref)
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "Docker-Content-Digest", want.Root.Digest.String())
	for _, m := range append([]ocispec.Descriptor{want.Root, want.Artifact}, want.Manifests...) {
		wantStatus(t, c.registry(http.MethodGet, "/v2/"+repo+"/manifests/"+m.Digest.String()), http.StatusOK)
	}
	for _, b := range want.Blobs {
		got := c.get(c.signedURL("/v2/" + repo + "/blobs/" + b.Digest.String()))
		wantStatus(t, got, http.StatusOK)
		if int64(len(got.body)) != b.Size {
			t.Errorf("blob %s has %d bytes, want %d", b.Digest, len(got.body), b.Size)
		}
	}
}

func TestReplicationCopiesEverythingButPolicies(t *testing.T) {
	server, _ := start(t, ecrtest.Options{})
	replica, c := start(t, ecrtest.Options{AWS: server.AWS(), Region: "eu-west-1"})
	cfg := sdk(t, replica, ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}.Environment())
	c.password = tokenOf(t, cfg)
	added, err := server.AddImage("team/app", "v1", image())
	if err != nil {
		t.Fatal(err)
	}
	if err := server.SetLifecyclePolicy("team/app", "{}"); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, c.registry(http.MethodGet, "/v2/team/app/manifests/v1"), http.StatusNotFound)
	if err := server.Replicate("team/app", replica.Server); err != nil {
		t.Fatal(err)
	}
	server.Stop() // the other region is down
	wantImage(t, c, "team/app", "v1", added)
	wantAPIError(t, callECR(t, c.api("AKIDLARDERTEST", "eu-west-1"), "GetLifecyclePolicy"), "LifecyclePolicyNotFoundException")
	if err := server.Replicate("team/none", replica.Server); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no repository: %v", err)
	}
}

func TestPullThroughImportsByTag(t *testing.T) {
	clock := ecrtest.NewClock()
	hub := ecrtest.New(ecrtest.Options{})
	server, c := start(t, ecrtest.Options{Now: clock.Now, TokenTTL: 1000 * time.Hour})
	added, err := hub.AddImage("library/app", "v1", image())
	if err != nil {
		t.Fatal(err)
	}
	server.AddPullThrough(ecrtest.PullThrough{Prefix: "hub", From: hub})
	const repo, path = "hub/library/app", "/v2/hub/library/app/manifests/"
	wantBody(t, c.registry(http.MethodGet, path+added.Root.Digest.String()), errorBody("NAME_UNKNOWN",
		"The repository with name 'hub/library/app' does not exist in the registry with id '123456789012'"))
	wantStatus(t, c.registry(http.MethodGet, path+"v2"), http.StatusNotFound)
	wantImage(t, c, repo, "v1", added)

	// The registry sees that a tag has moved a day later.
	if _, err := hub.AddManifest("library/app", "v1", ocispec.MediaTypeImageManifest, []byte(`{"moved":1}`)); err != nil {
		t.Fatal(err)
	}
	clock.Advance(24*time.Hour - time.Second)
	wantImage(t, c, repo, "v1", added)
	clock.Advance(time.Second)
	wantBody(t, c.registry(http.MethodGet, path+"v1"), `{"moved":1}`)
}

func TestPullThroughNeedsTwoPermissions(t *testing.T) {
	hub := ecrtest.New(ecrtest.Options{})
	for _, tag := range []string{"v1", "v2"} {
		if _, err := hub.AddManifest("library/app", tag, ocispec.MediaTypeImageManifest, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	server, c := start(t, ecrtest.Options{})
	server.AddPullThrough(ecrtest.PullThrough{Prefix: "hub", From: hub})
	noRepo := errorBody("NAME_UNKNOWN",
		"The repository with name 'hub/library/app' does not exist in the registry with id '123456789012'")
	noImage := errorBody("MANIFEST_UNKNOWN", "Requested image not found")
	const imports, creates = "ecr:BatchImportUpstreamImage", "ecr:CreateRepository"
	for _, test := range []struct {
		extra []string
		tag   string
		want  string
	}{
		{nil, "v1", noRepo},
		{[]string{imports}, "v1", noRepo},
		{[]string{creates}, "v1", noRepo},
		{[]string{imports, creates}, "v1", "{}"},
		{[]string{creates}, "v2", noImage},
		{[]string{imports}, "v2", "{}"},
	} {
		key := server.AWS().AddUser(ownUser, ecrtest.Policy{ecrtest.Allow(append(ecrtest.PullActions(), test.extra...)...)})
		c.password = tokenOf(t, sdk(t, server, key.Environment()))
		wantBody(t, c.registry(http.MethodGet, "/v2/hub/library/app/manifests/"+test.tag), test.want)
	}
}

func TestFirstPullThroughMayMiss(t *testing.T) {
	hub := ecrtest.New(ecrtest.Options{})
	added, err := hub.AddImage("library/app", "v1", image())
	if err != nil {
		t.Fatal(err)
	}
	server, c := start(t, ecrtest.Options{})
	server.AddPullThrough(ecrtest.PullThrough{Prefix: "hub", From: hub, Miss: true})
	wantStatus(t, c.registry(http.MethodGet, "/v2/hub/library/app/manifests/v1"), http.StatusNotFound)
	wantImage(t, c, "hub/library/app", "v1", added)
}

func TestFirstPullThroughIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := ecrtest.New(ecrtest.Options{})
		if _, err := hub.AddManifest("app", "v1", ocispec.MediaTypeImageManifest, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		server := ecrtest.New(ecrtest.Options{})
		server.AddPullThrough(ecrtest.PullThrough{Prefix: "hub", From: hub, Delay: time.Minute})
		authorization := "Basic " + handToken(server)
		for _, want := range []time.Duration{time.Minute, 0} {
			req := httptest.NewRequest(http.MethodGet, "/v2/hub/app/manifests/v1", nil)
			req.Header.Set("Authorization", authorization)
			w := httptest.NewRecorder()
			started := time.Now()
			server.Registry().ServeHTTP(w, req)
			if took := time.Since(started); took != want || w.Body.String() != "{}" {
				t.Errorf("answered %q after %v, want %v", w.Body, took, want)
			}
		}
	})
}
