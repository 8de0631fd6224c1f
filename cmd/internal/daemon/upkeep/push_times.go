package upkeep

import (
	"context"
	"errors"
	"io/fs"
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

// NewPushTimes returns a PushTimes for the configured registries.
func NewPushTimes(cfg *config.Config, client *upstream.Client, log *slog.Logger) *PushTimes {
	return &PushTimes{registries{cfg, client}, log}
}

// pushTimeout bounds a question: clients wait for it, once for each move of a tag.
const pushTimeout = 3 * time.Second

// Of returns when an image was pushed, and false if its registry is not ECR or does not tell. It is a
// cache.Freshness.Pushed.
func (p *PushTimes) Of(ctx context.Context, repo cache.Repository, d digest.Digest) (time.Time, bool) {
	if p.registries.postponed(repo) {
		return time.Time{}, false
	}
	at, ok, err := p.ask(ctx, repo, d)
	if err != nil && !errors.Is(err, context.Canceled) {
		p.log.Warn("a cooldown counts from when the tag was seen to have moved, as ECR does not tell when the image was pushed: allow ecr:DescribeImages",
			"repository", repo, "digest", d, "error", err)
	}
	return at, ok
}

// Ask returns when an image was pushed, and false if its registry is not ECR or does not tell. The error
// says that the registry cannot be asked now. One that denies the question does not tell.
func (p *PushTimes) Ask(ctx context.Context, repo cache.Repository, d digest.Digest) (at time.Time, ok bool, err error) {
	if err := p.registries.client.Postponed(repo.Upstream); err != nil && p.isECR(repo) {
		return time.Time{}, false, err
	}
	at, ok, err = p.ask(ctx, repo, d)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		p.log.Warn("the age of an image counts from when it was first seen here, as ECR does not tell when it was pushed: allow ecr:DescribeImages",
			"repository", repo, "digest", d, "error", err)
		return time.Time{}, false, nil
	}
	return at, ok, err
}

func (p *PushTimes) isECR(repo cache.Repository) bool {
	_, _, ok := p.registries.ecr(repo)
	return ok
}

func (p *PushTimes) ask(ctx context.Context, repo cache.Repository, d digest.Digest) (at time.Time, ok bool, err error) {
	registry, _, ok := p.registries.ecr(repo)
	if !ok {
		return time.Time{}, false, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, pushTimeout, reply.ErrTimeout)
	defer cancel()
	at, err = registry.ECR().Pushed(ctx, repo.Name, d)
	return at, err == nil, err
}
