package upkeep

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// gone removes expired images that their upstream does not have any more, for the
// upstreams whose configuration says so. It belongs to one goroutine.
type gone struct {
	registries registries
	store      *cache.Store
	log        *slog.Logger
	pause      time.Duration // between two questions
}

// maxImages bounds how many images are asked about in one round. They are chosen at
// random, so that each is chosen at some time.
const maxImages = 1000

// remove asks the upstreams about expired images and removes those that are gone.
// It does not ask about images that are listed. An upstream that does not answer is left
// alone until the next round.
func (g *gone) remove(ctx context.Context, listed map[cache.RepoDigest]bool) error {
	images, err := g.store.Images()
	if err != nil {
		return err
	}
	rand.Shuffle(len(images), func(i, j int) { images[i], images[j] = images[j], images[i] })
	asked := make(map[cache.RepoDigest]bool) // an image may have several tags
	silent := make(map[string]bool)
	for _, img := range images {
		id := cache.RepoDigest{Repository: cache.Repository{Upstream: img.Upstream, Name: img.Repository}, Digest: img.Digest}
		// An image without a media type is not in the cache: there is nothing to remove.
		if img.Expired == nil || img.MediaType == "" || img.Pinned || listed[id] || asked[id] || silent[id.Upstream] || !g.applies(id.Repository) {
			continue
		}
		if len(asked) == maxImages {
			break
		}
		asked[id] = true
		isGone, answered := g.ask(ctx, id)
		silent[id.Upstream] = !answered
		if isGone {
			g.removeImage(id)
		}
		if !sleep(ctx, g.pause) {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (g *gone) applies(repo cache.Repository) bool {
	entry, ok := g.registries.entry(repo)
	return ok && entry.EnforcesLifecycle() && !g.registries.postponed(repo)
}

// ask asks the upstream about an image. After any other answer than that it has no such
// image, and without one, the image stays.
func (g *gone) ask(ctx context.Context, id cache.RepoDigest) (isGone, answered bool) {
	registry, err := g.registries.client.Registry(id.Upstream)
	if err != nil {
		return false, false
	}
	_, _, err = registry.Manifest(pace.Background(ctx), id.Name, id.Digest.String(), true)
	answered = err == nil || isAnswer(err)
	return answered && errors.Is(err, fs.ErrNotExist), answered
}

// isAnswer reports whether an error is what an upstream says about the content. Any other
// may mean that it does not answer at all, or not now.
func isAnswer(err error) bool {
	var refusal *reply.Error
	return errors.As(err, &refusal) && !reply.IsThrottled(err)
}

func (g *gone) removeImage(id cache.RepoDigest) {
	freed, err := g.store.RemoveExpired(id.Repository, id.Digest)
	switch {
	case errors.Is(err, cache.ErrPinned), errors.Is(err, fs.ErrNotExist): // since the images were listed
	case err != nil:
		g.log.Warn("an expired image that is gone upstream was not removed", "repository", id.Repository, "digest", id.Digest, "error", err)
	default:
		g.log.Info("removed an expired image that is gone upstream", "repository", id.Repository, "digest", id.Digest, "bytes", freed)
	}
}
