package upkeep

import (
	"context"
	"log/slog"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
)

// Lifecycle applies lifecycle rules, those of ECR's repositories and those of the
// configuration: expired images are evicted first. It keeps its results in the
// store, so that they hold after a restart and while an upstream does not answer.
type Lifecycle struct {
	store *cache.Store
	log   *slog.Logger
	ecr   *ecrPolicies
	local localRules
	gone  *gone
	asked time.Time // when gone was last asked
}

const (
	// lifecycleFirst is how long after start-up rules are first applied: a node
	// that boots has better things to do.
	lifecycleFirst = 5 * time.Minute
	// lifecycleEvery is how often they are applied after that. Each round reads a few
	// policies at ECR (readings) and applies local rules.
	lifecycleEvery = 10 * time.Minute
	// goneEvery is how often expired images are looked for upstream.
	goneEvery = time.Hour
	// lifecyclePause is between two questions about manifests, far below the rate that
	// ECR allows an account.
	lifecyclePause = time.Second
)

// NewLifecycle returns a Lifecycle that does nothing before Run.
func NewLifecycle(cfg *config.Config, client *upstream.Client, store *cache.Store, log *slog.Logger) *Lifecycle {
	registries := registries{cfg, client}
	return &Lifecycle{
		store: store,
		log:   log,
		ecr: &ecrPolicies{
			registries: registries, store: store, log: log, now: time.Now, pause: callPause,
			readings: &readings{of: make(map[cache.Repository]*reading)},
			unclear:  make(map[cache.Repository]string),
			indexes:  newIndexes(log, lifecyclePause),
			denials: newDenials(log, "lifecycle policies are not read: eviction goes by last use alone; to change that allow "+
				"ecr:GetLifecyclePolicy and ecr:DescribeImages, and to silence this set ecr.lifecycle to off"),
		},
		local: localRules{cfg, store},
		gone:  &gone{registries: registries, store: store, log: log, pause: lifecyclePause},
	}
}

// Run applies the rules again and again until ctx ends.
func (l *Lifecycle) Run(ctx context.Context) {
	repeat(ctx, lifecycleFirst, lifecycleEvery, func() {
		if err := l.apply(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("lifecycle rules were not applied", "error", err)
		}
	})
}

// apply evaluates all rules, tells the store what has expired, and at times removes
// what is gone upstream.
func (l *Lifecycle) apply(ctx context.Context) error {
	byECR, err := l.ecr.expired(ctx)
	if err != nil {
		return err
	}
	byLocal, err := l.local.expired()
	if err != nil {
		return err
	}
	if err := l.store.Expire(earliest(byECR, byLocal)); err != nil {
		return err
	}
	if now := l.ecr.now(); now.Sub(l.asked) >= goneEvery {
		l.asked = now
		return l.gone.remove(ctx, l.ecr.readings.listed())
	}
	return nil
}
