package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// hinted is a Larder in this process, in front of a fake ECR.
type hinted struct {
	ecr    *ecrtest.Running
	store  *cache.Store
	hints  *lifecycleHints
	server *httptest.Server
	log    bytes.Buffer
}

// startHinted gives the cache room for two images of 3 MiB and not for three: 57
// MiB less some 50 for the index.
func startHinted(t *testing.T, ecrKeys string) *hinted {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID":           "AKIDLARDERTEST",
		"AWS_SECRET_ACCESS_KEY":       "secret",
		"AWS_SESSION_TOKEN":           "",
		"AWS_CONFIG_FILE":             os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_EC2_METADATA_DISABLED":   "true",
	} {
		t.Setenv(name, value)
	}
	fake, err := ecrtest.Start(ecrtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "larder.yaml")
	text := fmt.Sprintf("upstreams: [{host: %q, endpoint: %q, ecr: {api_endpoint: %q%s}}]", fake.Host(), fake.Endpoint, fake.Endpoint, ecrKeys)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	h := &hinted{ecr: fake}
	log := slog.New(slog.NewTextHandler(&h.log, nil))
	h.store, err = cache.Open(t.TempDir(), cache.Options{MaxSize: 57 << 20, LowWater: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	client := upstream.NewClient(upstream.Options{Lookup: lookup(cfg), Log: log})
	h.hints = newLifecycleHints(cfg, client, h.store, log)
	h.server = httptest.NewServer(proxy.New(proxy.Options{
		Upstreams: sources(cfg, client, log), Default: fake.Host(), Store: h.store, Log: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(func() {
		h.server.Close()
		for _, end := range []func() error{h.store.Close, client.Close, fake.Close} {
			if err := end(); err != nil {
				t.Error(err)
			}
		}
	})
	return h
}

// add gives the upstream an image of one layer that was pushed a while ago.
func (h *hinted) add(t *testing.T, tag string, pushed time.Duration) *ecrtest.Added {
	t.Helper()
	layer := ecrtest.Layer{Content: ecrtest.TarLayer("data", uint64(len(tag))+uint64(pushed), 3<<20)}
	added, err := h.ecr.AddImage("team/app", tag, ecrtest.Image{Layers: []ecrtest.Layer{layer}})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.ecr.SetImageState("team/app", added.Root.Digest, ecrtest.ImageState{Pushed: time.Now().Add(-pushed)}); err != nil {
		t.Fatal(err)
	}
	return added
}

// pull asks for an image as a runtime does, again and again until all of it is
// in the cache: a client has the last byte of a blob before that is.
func (h *hinted) pull(t *testing.T, tag string, img *ecrtest.Added) {
	t.Helper()
	paths := []string{"manifests/" + tag}
	for _, blob := range img.Blobs {
		paths = append(paths, "blobs/"+blob.Digest.String())
	}
	for _, path := range paths {
		for h.get(t, path) != "HIT" {
		}
	}
}

// get returns the X-Cache of an answer.
func (h *hinted) get(t *testing.T, path string) string {
	t.Helper()
	resp, err := h.server.Client().Get(h.server.URL + "/v2/team/app/" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return resp.Header.Get("X-Cache")
}

// holds reports whether the image's layers are in the cache.
func (h *hinted) holds(img *ecrtest.Added) bool {
	for _, blob := range img.Blobs {
		if _, err := h.store.Stat(blob.Digest); err != nil {
			return false
		}
	}
	return true
}

func TestExpiredImagesAreEvictedFirst(t *testing.T) {
	for _, c := range []struct {
		name, keys string
		keepsOld   bool
	}{
		{"hint", "", false},
		{"off", ", lifecycle: \"off\"", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := startHinted(t, c.keys)
			old, young := h.add(t, "old", 48*time.Hour), h.add(t, "young", 2*time.Hour)
			policy := `{"rules": [{"rulePriority": 1, "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 2}, "action": {"type": "expire"}}]}`
			if err := h.ecr.SetLifecyclePolicy("team/app", policy); err != nil {
				t.Fatal(err)
			}
			third := h.add(t, "third", time.Hour)
			h.pull(t, "young", young)
			h.pull(t, "old", old) // the one that expired was used last
			if err := h.hints.refresh(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			h.pull(t, "third", third)
			if h.holds(old) != c.keepsOld || h.holds(young) == c.keepsOld {
				t.Errorf("held: the expired image %t, the other %t", h.holds(old), h.holds(young))
			}
		})
	}
}

func TestRefusedLifecyclePolicyIsSaidOnce(t *testing.T) {
	h := startHinted(t, "")
	img := h.add(t, "v1", time.Hour)
	h.pull(t, "v1", img)
	h.ecr.Inject(ecrtest.Fault{On: ecrtest.API, Status: http.StatusBadRequest,
		Body: `{"__type":"AccessDeniedException","message":"no"}`})
	for range 2 {
		if err := h.hints.refresh(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(h.log.String(), "ecr:GetLifecyclePolicy"); n != 1 {
		t.Errorf("said %d times:\n%s", n, &h.log)
	}
}
