package upkeep

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/reply"
)

// KeepAlive touches the images that the cache has served: it fetches their
// manifests from ECR. ECR does not see pulls that the cache serves, so that without
// it a lifecycle rule with sinceImagePulled would archive images in use.
type KeepAlive struct {
	registries registries
	store      *cache.Store
	log        *slog.Logger
	now        func() time.Time
	pause      time.Duration // between two touches
	exclusions *exclusions
	touches    metric.Int64Counter
}

const (
	// keepAliveFirst is how long after start-up the first round begins, and
	// keepAliveEvery how long after that each further one.
	keepAliveFirst = 10 * time.Minute
	keepAliveEvery = time.Hour
	// keepAlivePause is between two touches, and maxTouches how many a round has:
	// all of them fit into an hour.
	keepAlivePause = 3 * time.Second
	maxTouches     = 1000
	// sameUse is how long after a touch a use still belongs to the pull before it.
	sameUse = time.Minute
)

// NewKeepAlive returns a KeepAlive that does nothing before Run. The error is about
// its metric.
func NewKeepAlive(cfg *config.Config, client *upstream.Client, store *cache.Store, log *slog.Logger, provider metric.MeterProvider) (*KeepAlive, error) {
	touches, err := provider.Meter("github.com/larder-registry/larder").Int64Counter("larder.keep_alive.touches",
		metric.WithUnit("{manifest}"),
		metric.WithDescription("Manifests fetched only so that ECR knows that they are in use, by upstream and result."))
	if err != nil {
		return nil, fmt.Errorf("set up metrics: %w", err)
	}
	return &KeepAlive{
		registries: registries{cfg, client},
		store:      store,
		log:        log,
		now:        time.Now,
		pause:      keepAlivePause,
		exclusions: newExclusions(log),
		touches:    touches,
	}, nil
}

// Run touches what is due again and again until ctx ends.
func (k *KeepAlive) Run(ctx context.Context) {
	repeat(ctx, keepAliveFirst, keepAliveEvery, func() {
		if err := k.round(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("images in use were not made known to ECR", "error", err)
		}
	})
}

// round touches what is due, in random order. An upstream that does not answer is
// left alone until the next round, and so is one that does not record these pulls.
func (k *KeepAlive) round(ctx context.Context) error {
	due, err := k.due()
	if err != nil {
		return err
	}
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	passed := make(map[string]bool) // upstreams that are left alone
	asked := make(map[string]bool)
	left := maxTouches
	for _, m := range due {
		if !asked[m.Upstream] {
			asked[m.Upstream] = true
			passed[m.Upstream] = k.exclusions.has(ctx, m.Upstream, m.registry.ECR(), k.now())
		}
		if passed[m.Upstream] {
			continue
		}
		if left--; left < 0 {
			break
		}
		if k.registries.client.FetchPostponed(m.Upstream) != nil {
			continue // it is due in a later round
		}
		answered, err := k.touch(ctx, m)
		if err != nil {
			return err
		}
		passed[m.Upstream] = !answered
		if !sleep(ctx, k.pause) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// inUse is a manifest that is due.
type inUse struct {
	cache.RepoDigest
	registry *upstream.Registry
	entry    string // of the configuration, for metrics: a pattern is one for many hosts
}

// due returns the manifests that were used since their last touch, if that is long
// enough ago.
func (k *KeepAlive) due() ([]inUse, error) {
	holdings, err := k.store.Holdings()
	if err != nil {
		return nil, err
	}
	now := k.now()
	var due []inUse
	for repo, held := range holdings {
		registry, entry, ok := k.registries.ecr(repo)
		every := entry.KeepAlive()
		if !ok || every == 0 || k.registries.postponed(repo) {
			continue
		}
		for _, h := range held {
			touched := h.Touched
			if touched.After(now) {
				touched = time.Time{} // by a clock that was wrong
			}
			if now.Sub(touched) >= every && h.Used.Sub(touched) > sameUse {
				due = append(due, inUse{cache.RepoDigest{Repository: repo, Digest: h.Digest}, registry, string(entry.Host)})
			}
		}
	}
	return due, nil
}

// touch fetches a manifest, and reports whether the upstream has answered. A
// refusal is an answer: the manifest is not due again before the usual time either.
func (k *KeepAlive) touch(ctx context.Context, m inUse) (answered bool, err error) {
	at := k.now()
	err = m.registry.Touch(ctx, m.Name, m.Digest)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	result := touchResult(err)
	k.touches.Add(ctx, 1, metric.WithAttributes(attribute.String("upstream", m.entry), attribute.String("result", result)))
	k.log.Debug("told ECR that an image is in use", "repository", m.Repository, "digest", m.Digest, "result", result, "error", err)
	if result == "failed" {
		return false, nil
	}
	return true, k.store.Touched(m.Repository, m.Digest, at)
}

// touchResult is the metric's label. Only an answer of the registry means that the
// image is gone or denied: missing credentials are a denial too.
func touchResult(err error) string {
	var refusal *reply.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &refusal) && errors.Is(refusal, fs.ErrNotExist):
		return "gone"
	case errors.As(err, &refusal) && errors.Is(refusal, fs.ErrPermission):
		return "denied"
	}
	return "failed"
}
