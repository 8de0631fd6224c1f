package keep_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring/bringtest"
	"github.com/larder-registry/larder/cmd/internal/daemon/keep"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/offline"
)

// rig is a site whose keeper runs.
type rig struct {
	t      *testing.T
	groups []config.Keep
	opts   cache.Options
	log    bytes.Buffer
	sea    atomic.Bool  // the upstream is offline
	shut   func() error // the line is; nil for an open one
	*bringtest.Site
	keeper *keep.Keeper
	end    func()
}

// group keeps images for linux/amd64, and asks every hour.
func group(references ...string) config.Keep {
	k := config.Keep{Platforms: []string{"linux/amd64"}, Every: time.Hour, Switch: "whole"}
	for _, reference := range references {
		k.Images = append(k.Images, bringtest.Name(reference))
	}
	return k
}

// newRig is called in a bubble.
func newRig(t *testing.T, opts cache.Options, groups ...config.Keep) *rig {
	t.Helper()
	r := &rig{t: t, groups: groups, opts: opts}
	r.opts.Tags.TTL, r.opts.Tags.StaleIfError, r.opts.Tags.Negative = time.Minute, 4*time.Hour, 10*time.Second
	r.setUp()
	r.Site = bringtest.New(t, r.opts)
	return r
}

// setUp makes a keeper, of which the store is told.
func (r *rig) setUp() {
	r.t.Helper()
	var err error
	if r.keeper, err = keep.New(r.groups, slog.New(slog.NewTextHandler(&r.log, nil)), nil); err != nil {
		r.t.Fatal(err)
	}
	r.opts.Keep, r.opts.Tags.Kept = r.keeper.Pins, r.keeper.ServesRecorded
}

// run runs the keeper, and waits until it rests.
func (r *rig) run() {
	r.keeper.Use(bring.New(r.Proxy, r.Store, slog.New(slog.DiscardHandler)), r.Store, func(host string) error {
		if r.sea.Load() {
			return &offline.Error{Host: host}
		}
		if r.shut != nil {
			return r.shut()
		}
		return nil
	})
	ctx, cancel := context.WithCancel(r.t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.keeper.Run(ctx) })
	r.end = func() {
		cancel()
		running.Wait()
	}
	synctest.Wait()
}

// restart restarts the store and the keeper.
func (r *rig) restart() {
	r.end()
	r.setUp()
	r.Restart(r.opts)
	r.run()
}

func (r *rig) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// want fails the test unless the image is in a state, and clients get this digest for the tag.
func (r *rig) want(reference string, state keep.State, d digest.Digest) {
	r.t.Helper()
	got := r.keeper.Status(bringtest.Name(reference).String())
	if got.State != state || got.Digest != d {
		r.t.Errorf("%s is %+v; want %s, %s", reference, got, state, d)
	}
	if pulled, err := r.Pull(reference, 0); d != "" && (err != nil || pulled != d) {
		r.t.Errorf("pulled %s, %v; want %s", pulled, err, d)
	}
}

// isPinned reports whether an image is pinned.
func (r *rig) isPinned(reference string) bool {
	r.t.Helper()
	all, err := r.Store.Pins()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, pin := range all {
		if pin.Image == bringtest.Name(reference).String() {
			return true
		}
	}
	return false
}
