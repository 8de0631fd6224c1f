package upkeep_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// A rig is a Larder in this process, in front of a fake ECR, whose upkeep the test does.
type rig struct {
	ecr       *ecrtest.Running
	cfg       *config.Config
	client    *upstream.Client
	store     *cache.Store
	lifecycle *upkeep.Lifecycle
	tags      *upkeep.ImmutableTags
	server    *httptest.Server
	logger    *slog.Logger
	log       bytes.Buffer // what logger wrote
	offline   atomic.Bool  // the upstream is
}

// newRig returns a rig whose cache has room for two images of 3 MiB and not for three: 57 MiB less some 50 for the index.
// The texts are more keys of the configuration, of the upstream's ecr and at the top.
func newRig(t *testing.T, ecrKeys, keys string) *rig {
	t.Helper()
	return newRigAt(t, time.Now, ecrKeys, keys)
}

// newRigAt is newRig by another clock than the machine's.
func newRigAt(t *testing.T, now func() time.Time, ecrKeys, keys string) *rig {
	t.Helper()
	// When the clock leaps a token would expire which is otherwise renewed before.
	fake, err := ecrtest.Start(ecrtest.Options{Now: now, TokenTTL: 100 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	setEnvironment(t, fake.Environment())
	setEnvironment(t, ecrtest.Key{AccessKeyID: "AKIDLARDERTEST", SecretAccessKey: "secret"}.Environment())
	file := filepath.Join(t.TempDir(), "larder.yaml")
	text := fmt.Sprintf("upstreams: [{host: %q, endpoint: %q, ecr: {api_endpoint: %q%s}}]\n%s\n", fake.Host(), fake.Endpoint, fake.Endpoint, ecrKeys, keys)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{ecr: fake, cfg: cfg}
	r.logger = slog.New(slog.NewTextHandler(&r.log, nil))
	r.client = upstream.NewClient(upstream.Options{
		Lookup: daemon.Lookup(cfg), Log: r.logger, Offline: func(string) bool { return r.offline.Load() },
	})
	r.tags = upkeep.NewImmutableTags(cfg, r.client, r.logger)
	r.tags.SetClock(now)
	r.store, err = cache.Open(t.TempDir(), cache.Options{
		MaxSize: 57 << 20, LowWater: 1, Log: slog.New(slog.DiscardHandler), Now: now,
		Tags: cache.Freshness{TTL: cfg.Tags.TTL, Immutable: r.tags.Since, ImmutableTTL: upkeep.ImmutableTTL},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.lifecycle = upkeep.NewLifecycle(cfg, r.client, r.store, r.logger)
	r.server = httptest.NewServer(proxy.New(proxy.Options{
		Upstreams: r.source, Default: fake.Host(), Store: r.store, Log: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(func() {
		r.server.Close()
		if err := errors.Join(r.store.Close(), r.client.Close(), fake.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func setEnvironment(t *testing.T, variables map[string]string) {
	t.Helper()
	for name, value := range variables {
		t.Setenv(name, value)
	}
}

// source finds the upstream of a client's request.
func (r *rig) source(host, _ string) (proxy.Source, error) {
	registry, err := r.client.Registry(host)
	return proxy.Source{Upstream: registry, OpenBlob: openBlob(registry), Timeout: 20 * time.Second, Name: host}, err
}

// add gives the upstream an image of one layer that was pushed a while ago.
func (r *rig) add(t *testing.T, tag string, pushed time.Duration) *ecrtest.Added {
	t.Helper()
	layer := ecrtest.Layer{Content: ecrtest.TarLayer("data", uint64(len(tag))+uint64(pushed), 3<<20)}
	added, err := r.ecr.AddImage("team/app", tag, ecrtest.Image{Layers: []ecrtest.Layer{layer}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ecr.SetImageState("team/app", added.Root.Digest, ecrtest.ImageState{Pushed: time.Now().Add(-pushed)}); err != nil {
		t.Fatal(err)
	}
	return added
}

// pull asks for an image as a runtime does, again and again until all of it is
// in the cache: a client has the last byte of a blob before that is.
func (r *rig) pull(t *testing.T, tag string, img *ecrtest.Added) {
	t.Helper()
	paths := []string{"manifests/" + tag}
	for _, blob := range img.Blobs {
		paths = append(paths, "blobs/"+blob.Digest.String())
	}
	for _, path := range paths {
		await(t, path+" is in the cache", func() bool { return r.get(t, path) == "HIT" })
	}
}

// get returns the X-Cache of an answer.
func (r *rig) get(t *testing.T, path string) string {
	t.Helper()
	return r.getFrom(t, "team/app", path)
}

// getFrom is get for any repository.
func (r *rig) getFrom(t *testing.T, repo, path string) string {
	t.Helper()
	resp, err := r.server.Client().Get(r.server.URL + "/v2/" + repo + "/" + path)
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
func (r *rig) holds(img *ecrtest.Added) bool {
	for _, blob := range img.Blobs {
		if _, err := r.store.Stat(blob.Digest); err != nil {
			return false
		}
	}
	return true
}

// patience is how long a test waits for something, on a machine that is busy with other tests.
const patience = 30 * time.Second

// await returns once the condition holds, and fails the test where that takes too long.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("after %v it does not hold that %s", patience, what)
		}
	}
}

// openBlob opens blobs of a registry for the cache.
func openBlob(r *upstream.Registry) proxy.OpenBlob {
	return func(ctx context.Context, repository string, dgst digest.Digest, part cache.Range) (cache.Content, error) {
		content, err := r.OpenBlob(ctx, repository, dgst, upstream.Range(part))
		return cache.Content(content), err
	}
}
