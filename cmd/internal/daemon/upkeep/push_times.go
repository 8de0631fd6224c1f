package upkeep

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/reply"
)

// PushTimes asks ECR when images were pushed. It is safe for concurrent use.
type PushTimes struct {
	registries registries
	log        *slog.Logger
}

// NewPushTimes returns what asks the configured registries.
func NewPushTimes(cfg *config.Config, client *upstream.Client, log *slog.Logger) *PushTimes {
	return &PushTimes{registries{cfg, client}, log}
}

// pushTimeout bounds a question: clients wait for it, once for each move of a tag.
const pushTimeout = 3 * time.Second

// Of returns when an image was pushed, and false if its registry is not ECR or does not tell. It is a
// cache.Freshness.Pushed.
func (p *PushTimes) Of(ctx context.Context, repo cache.Repository, d digest.Digest) (time.Time, bool) {
	registry, _, ok := p.registries.ecr(repo)
	if !ok || p.registries.postponed(repo) {
		return time.Time{}, false
	}
	ctx, cancel := context.WithTimeoutCause(ctx, pushTimeout, reply.ErrTimeout)
	defer cancel()
	at, err := registry.ECR().Pushed(ctx, repo.Name, d)
	if err != nil && !errors.Is(err, context.Canceled) {
		p.log.Warn("a cooldown counts from when the tag was seen to have moved, as ECR does not tell when the image was pushed: allow ecr:DescribeImages",
			"repository", repo, "digest", d, "error", err)
	}
	return at, err == nil
}
