package upstream

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

const imported = "docker-hub/library/app"

func TestPrefixTellsWhatECRFills(t *testing.T) {
	for _, test := range []struct {
		prefix, repository string
		fills              bool
	}{
		{"docker-hub", "docker-hub/library/busybox", true},
		{"docker-hub", "docker-hub", false},
		{"docker-hub", "docker-hubs/busybox", false},
		{"docker-hub", "team/docker-hub/busybox", false},
		{"mirrors/quay", "mirrors/quay/a", true},
		{"mirrors/quay", "mirrors/a", false},
		{"ROOT", "team/app", true},
		{"quay", "team/app", false},
	} {
		if got := newImporter([]string{"other", test.prefix}).fills(test.repository); got != test.fills {
			t.Errorf("%s is filled by the rule for %s: %t", test.repository, test.prefix, got)
		}
	}
	if newImporter(nil).fills("team/app") {
		t.Error("there is a rule where none is configured")
	}
}

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
	r.imports.pause = time.Millisecond
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
	server.timeout = 100 * time.Millisecond
	desc, body, err := server.Manifest(t.Context(), imported, "v1", false)
	if err != nil || desc.Digest != want || string(body) != manifestBody {
		t.Errorf("got %v, %v", desc.Digest, err)
	}
}

func TestWhatIsNotPulledThroughSaysWhatThatTakes(t *testing.T) {
	server, want := startPullThrough(t, ecrtest.PullThrough{})
	for _, reference := range []string{"other", want.String()} { // a digest is not imported
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

// startFilling runs a registry whose repositories are all filled by ECR.
func startFilling(t *testing.T, h http.HandlerFunc) *Registry {
	t.Helper()
	r := startInBubble(t, h)
	r.imports = newImporter([]string{everyRepository})
	return r
}

func TestOrdinaryNotFoundIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		r := startFilling(t, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.WriteHeader(http.StatusNotFound)
		})
		for want, imports := range map[int64]*importer{1: newImporter([]string{"docker-hub"}), 2: r.imports} {
			r.imports = imports
			asked.Store(0)
			before := time.Now()
			_ = questions["manifest"](t.Context(), r, "")
			if n := asked.Load(); n != want {
				t.Errorf("asked %d times, want %d", n, want)
			}
			if took := time.Since(before); took != time.Duration(want-1)*importPause {
				t.Errorf("took %v", took)
			}
		}
	})
}

func TestDigestThatIsNotThereIsAskedForByItsTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := digest.FromString(manifestBody)
		var asked []string
		filled := false
		r := startFilling(t, func(w http.ResponseWriter, req *http.Request) {
			reference := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
			asked = append(asked, req.Method+" "+reference)
			switch {
			case req.Method == http.MethodHead:
				w.Header().Set("Docker-Content-Digest", want.String())
			case reference == "v1":
				filled = true
				_, _ = w.Write([]byte(manifestBody))
			case filled:
				_, _ = w.Write([]byte(manifestBody))
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		})
		if err := questions["head manifest"](t.Context(), r, ""); err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		desc, body, err := r.Manifest(t.Context(), repo, want.String(), false)
		if err != nil || string(body) != manifestBody {
			t.Errorf("got %q, %v; asked %v", body, err, asked)
		}
		wantDesc(t, desc, ocispec.Descriptor{Digest: want, Size: int64(len(manifestBody)), MediaType: "text/plain"})
		if took := time.Since(before); took != 0 {
			t.Errorf("took %v", took)
		}
		if len(asked) != 3 {
			t.Errorf("asked %v", asked)
		}
	})
}

func TestPauseOfAnImportEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startFilling(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
		ctx, cancel := context.WithTimeout(t.Context(), importPause/2)
		defer cancel()
		before := time.Now()
		if err := questions["manifest"](ctx, r, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
		if took := time.Since(before); took != importPause/2 {
			t.Errorf("took %v", took)
		}
	})
}
