package upstream

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

const imported = "docker-hub/library/app"

// startPullThrough runs a fake ECR that pulls library/app:v1 through, and a
// registry that knows of it.
func startPullThrough(t *testing.T, rule ecrtest.PullThrough) (*fake, digest.Digest) {
	t.Helper()
	server := startECR(t, ecrtest.Options{})
	from := ecrtest.New(ecrtest.Options{Region: "us-west-1"})
	image, err := from.AddManifest("library/app", "v1", manifestType, []byte(manifestBody))
	if err != nil {
		t.Fatal(err)
	}
	rule.Prefix, rule.From = "docker-hub", from
	server.AddPullThrough(rule)
	cfg := ecrConfig(server.Running)
	cfg.ECR.PullThrough = []string{"docker-hub"}
	c, log := newTestClient(t, cfg)
	r := registryOf(t, c, cfg.Host)
	return &fake{server.Running, r, log}, image.Digest
}

func TestFirstPullThroughThatIsNotFoundIsRepeated(t *testing.T) {
	for _, head := range []bool{false, true} {
		server, want := startPullThrough(t, ecrtest.PullThrough{Miss: true})
		desc, _, err := server.Manifest(t.Context(), imported, "v1", head)
		if err != nil || desc.Digest != want {
			t.Errorf("head %t: %v, %v", head, desc.Digest, err)
		}
		if n := server.Stats().Requests[ecrtest.Manifest]; n != 2 {
			t.Errorf("head %t: asked %d times, want twice", head, n)
		}
	}
}

func TestFirstPullThroughMayTakeLongerThanTheTimeout(t *testing.T) {
	server, want := startPullThrough(t, ecrtest.PullThrough{Delay: 300 * time.Millisecond})
	server.members.primary().timeout = 100 * time.Millisecond
	desc, body, err := server.Manifest(t.Context(), imported, "v1", false)
	if err != nil || desc.Digest != want || string(body) != manifestBody {
		t.Errorf("got %v, %v", desc.Digest, err)
	}
}

func TestImageThatIsNotPulledThroughNamesThePermissions(t *testing.T) {
	server, want := startPullThrough(t, ecrtest.PullThrough{})
	for _, reference := range []string{"other", want.String()} { // ECR imports no digests
		_, _, err := server.Manifest(t.Context(), imported, reference, false)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s: %v, want %v", reference, err, fs.ErrNotExist)
		}
		for _, text := range []string{"ecr:BatchImportUpstreamImage", "ecr:CreateRepository", "by tag"} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %q does not say %q", reference, err, text)
			}
		}
	}
	if _, _, err := server.Manifest(t.Context(), repo, "other", false); err == nil || strings.Contains(err.Error(), "Import") {
		t.Errorf("an ordinary repository: %v", err)
	}
}
