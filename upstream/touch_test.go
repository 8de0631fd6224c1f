package upstream

import (
	"errors"
	"io/fs"
	"net/http"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// untaggedPolicy is a lifecycle policy as ECR stores it.
const untaggedPolicy = `{"rules":[{"rulePriority":2,"selection":{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1},` +
	`"action":{"type":"expire"}}]}`

func TestTouchCountsAsAPull(t *testing.T) {
	clock := ecrtest.NewClock()
	server := startECR(t, ecrtest.Options{Now: clock.Now})
	dgst := digest.FromString(manifestBody)
	if err := server.SetLifecyclePolicy(repo, untaggedPolicy); err != nil {
		t.Fatal(err)
	}
	if err := server.Touch(t.Context(), repo, dgst); err != nil {
		t.Fatal(err)
	}
	got, err := server.ECR().Lifecycle(t.Context(), repo, time.Time{})
	if err != nil || len(got.Images) != 1 || !got.Images[0].Pulled.Equal(clock.Now()) {
		t.Errorf("ECR has %+v, %v; want a pull at %v", got.Images, err, clock.Now())
	}
	stats := server.Stats()
	if n := stats.Requests[ecrtest.Manifest]; n != 1 || stats.Requests[ecrtest.Blob] != 0 {
		t.Errorf("%d manifests and %d blobs were asked for, want one manifest", n, stats.Requests[ecrtest.Blob])
	}
}

func TestTouchOfAMissingManifestIsNotExist(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	if err := server.Touch(t.Context(), repo, digest.FromString("none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such manifest: %v", err)
	}
	plain, _ := startPlain(t, Config{}, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s %s", r.Method, r.URL) })
	if err := plain.Touch(t.Context(), repo, digest.FromString(manifestBody)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a registry that is not ECR: %v", err)
	}
}

// The repository's policy does not count pulls from a replica.
func TestTouchIsForTheRegistryItself(t *testing.T) {
	r := startReplicated(t)
	r.primary.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusBadGateway})
	if err := r.Touch(t.Context(), repo, digest.FromString(manifestBody)); err == nil {
		t.Error("a registry that fails was touched")
	}
	if n := r.replica.Stats().Requests[ecrtest.Manifest]; n != 0 {
		t.Errorf("its replica was asked %d times", n)
	}
}
