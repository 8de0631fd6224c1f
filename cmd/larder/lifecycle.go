package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
)

// lifecycleHints has the cache evict first what the lifecycle policies of its
// ECR repositories have expired. It belongs to one goroutine.
type lifecycleHints struct {
	cfg    *config.Config
	client *upstream.Client
	store  *cache.Store
	log    *slog.Logger

	expired map[cache.Repository][]cache.Expired // by the latest reading of each
	denied  map[string]bool                      // upstreams of which this was said
}

const (
	// lifecycleFirst is how long after start-up policies are first read: a node
	// that boots has better things to do.
	lifecycleFirst = 5 * time.Minute
	// lifecycleEvery is how often they are read after that. ECR itself applies a
	// policy within 24 hours.
	lifecycleEvery = time.Hour
	// lifecyclePause is between two repositories, far below what ECR allows for
	// an account.
	lifecyclePause = time.Second
	// maxLifecycleRepositories bounds one reading.
	maxLifecycleRepositories = 1000
)

func newLifecycleHints(cfg *config.Config, client *upstream.Client, store *cache.Store, log *slog.Logger) *lifecycleHints {
	return &lifecycleHints{
		cfg: cfg, client: client, store: store, log: log,
		expired: make(map[cache.Repository][]cache.Expired),
		denied:  make(map[string]bool),
	}
}

// run reads again and again until ctx ends.
func (h *lifecycleHints) run(ctx context.Context) {
	for pause := lifecycleFirst; sleep(ctx, jittered(pause)); pause = lifecycleEvery {
		if err := h.refresh(ctx, lifecyclePause); err != nil && ctx.Err() == nil {
			h.log.Warn("lifecycle hints were not brought up to date", "error", err)
		}
	}
}

// refresh reads the policies of all cached repositories and hands the verdicts
// to the store. A repository that cannot be read for the moment keeps its last
// verdict.
func (h *lifecycleHints) refresh(ctx context.Context, pause time.Duration) error {
	repos, err := h.store.Repositories()
	if err != nil {
		return err
	}
	latest := make(map[cache.Repository][]cache.Expired)
	for _, repo := range repos[:min(len(repos), maxLifecycleRepositories)] {
		registry, ok := h.registry(repo.Upstream)
		if !ok {
			continue
		}
		expired, err := h.read(ctx, registry, repo)
		if !sleep(ctx, pause) {
			return context.Cause(ctx)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist): // no policy, or not ECR
			continue
		case errors.Is(err, fs.ErrPermission):
			h.sayDenied(repo.Upstream, err)
			continue
		case err != nil:
			h.log.Warn("a lifecycle policy could not be read", "repository", repo, "error", err)
			expired = h.expired[repo]
		}
		latest[repo] = expired
	}
	h.expired = latest
	var all []cache.Expired
	for _, expired := range latest {
		all = append(all, expired...)
	}
	return h.store.Doom(all)
}

// registry returns the upstream of a repository whose policies are heeded.
func (h *lifecycleHints) registry(host string) (*upstream.Registry, bool) {
	entry, ok := h.cfg.Match(host)
	if !ok || !entry.HeedsLifecycle() {
		return nil, false
	}
	registry, err := h.client.Registry(host)
	return registry, err == nil
}

// read evaluates one repository's policy. ECR does not say what an index lists;
// the cache knows it of the indexes that it has.
func (h *lifecycleHints) read(ctx context.Context, registry *upstream.Registry, repo cache.Repository) ([]cache.Expired, error) {
	policy, images, err := registry.Lifecycle(ctx, repo.Name)
	if err != nil {
		return nil, err
	}
	for i := range images {
		if children, ok := h.store.Children(images[i].Digest); ok {
			images[i].Children = children
		}
	}
	var expired []cache.Expired
	for _, e := range policy.Expired(images, time.Now()) {
		expired = append(expired, cache.Expired{Repository: repo, Digest: e.Digest, Since: e.Since})
	}
	return expired, nil
}

// sayDenied logs once for an upstream that its policies cannot be read.
func (h *lifecycleHints) sayDenied(host string, err error) {
	if !h.denied[host] {
		h.denied[host] = true
		h.log.Info("lifecycle policies are not read: eviction goes by last use alone; to change that allow "+
			"ecr:GetLifecyclePolicy and ecr:DescribeImages, and to silence this set ecr.lifecycle to off",
			"upstream", host, "error", err)
	}
}

// jittered keeps nodes that started together from asking together.
func jittered(d time.Duration) time.Duration {
	return d + time.Duration(rand.Int64N(int64(d)/5))
}

// sleep waits, and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
