package main

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

// keepAlive tells ECR of images that the cache has served, since pulls that never
// reach it do not count there: a lifecycle rule with sinceImagePulled would
// archive what nodes use. It belongs to one goroutine.
type keepAlive struct {
	cfg     *config.Config
	client  *upstream.Client
	store   *cache.Store
	log     *slog.Logger
	now     func() time.Time
	pause   time.Duration // between two touches
	touches metric.Int64Counter
}

const (
	// keepAliveFirst is how long after start-up images are first looked at, and
	// keepAliveEvery how often after that.
	keepAliveFirst = 10 * time.Minute
	keepAliveEvery = time.Hour
	// keepAlivePause is between two touches, and maxTouches how many there are at a
	// time: within the hour all of them are done.
	keepAlivePause = 3 * time.Second
	maxTouches     = 1000
	// sameUse is how long after a pull a use still belongs to it.
	sameUse = time.Minute
)

func newKeepAlive(cfg *config.Config, client *upstream.Client, store *cache.Store, log *slog.Logger, provider metric.MeterProvider) (*keepAlive, error) {
	touches, err := provider.Meter("github.com/larder-registry/larder").Int64Counter("larder.keep_alive.touches",
		metric.WithUnit("{manifest}"),
		metric.WithDescription("Manifests fetched only so that ECR knows that they are in use, by upstream and result."))
	if err != nil {
		return nil, fmt.Errorf("set up metrics: %w", err)
	}
	return &keepAlive{
		cfg: cfg, client: client, store: store, log: log, now: time.Now,
		pause:   keepAlivePause,
		touches: touches,
	}, nil
}

// run touches what is due again and again until ctx ends.
func (k *keepAlive) run(ctx context.Context) {
	for pause := keepAliveFirst; sleep(ctx, jittered(pause)); pause = keepAliveEvery {
		if err := k.round(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("images in use were not made known to ECR", "error", err)
		}
	}
}

// round touches what is due, in an order of chance. An upstream that does not
// answer is left alone until the next one.
func (k *keepAlive) round(ctx context.Context) error {
	due, err := k.due()
	if err != nil {
		return err
	}
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	silent := make(map[string]bool)
	left := maxTouches
	for _, m := range due {
		if silent[m.Upstream] {
			continue
		}
		if left--; left < 0 {
			break
		}
		answered, err := k.touch(ctx, m)
		if err != nil {
			return err
		}
		silent[m.Upstream] = !answered
		if !sleep(ctx, k.pause) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// inUse is a manifest that is due.
type inUse struct {
	imageID
	registry *upstream.Registry
	entry    string // of the configuration, for metrics: a pattern is one for many hosts
}

// due returns the manifests that were used since ECR last heard of them, if that
// is long enough ago.
func (k *keepAlive) due() ([]inUse, error) {
	holdings, err := k.store.Holdings()
	if err != nil {
		return nil, err
	}
	now := k.now()
	var due []inUse
	for repo, held := range holdings {
		registry, entry := k.heeded(repo)
		every := entry.KeepAlive()
		if registry == nil || every == 0 {
			continue
		}
		for _, h := range held {
			touched := h.Touched
			if touched.After(now) {
				touched = time.Time{} // by a clock that was wrong
			}
			if now.Sub(touched) >= every && h.Used.Sub(touched) > sameUse {
				due = append(due, inUse{imageID{repo, h.Digest}, registry, entry.Host})
			}
		}
	}
	return due, nil
}

// heeded returns the upstream of a repository and its entry in the configuration.
// There is no registry where that is not ECR, or is not allowed any more.
func (k *keepAlive) heeded(repo cache.Repository) (*upstream.Registry, config.Upstream) {
	entry, ok := k.cfg.Match(repo.Upstream)
	if !ok || !entry.Allows(repo.Name) {
		return nil, config.Upstream{}
	}
	registry, err := k.client.Registry(repo.Upstream)
	if err != nil || !registry.IsECR() {
		return nil, config.Upstream{}
	}
	return registry, entry
}

// touch reports whether the upstream has answered. A no is an answer: it is not
// asked again before the next time either.
func (k *keepAlive) touch(ctx context.Context, m inUse) (answered bool, err error) {
	at := k.now()
	err = m.registry.Touch(ctx, m.Name, m.Digest)
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	result := outcome(err)
	k.touches.Add(ctx, 1, metric.WithAttributes(attribute.String("upstream", m.entry), attribute.String("result", result)))
	k.log.Debug("told ECR that an image is in use", "repository", m.Repository, "digest", m.Digest, "result", result, "error", err)
	if result == "failed" {
		return false, nil
	}
	return true, k.store.Touched(m.Repository, m.Digest, at)
}

// outcome is the result of a touch. Only the registry's own answer tells what is
// gone or denied: credentials may be missing too.
func outcome(err error) string {
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
