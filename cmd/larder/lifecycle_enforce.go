package main

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// enforce removes expired images that their upstream does not have any more,
// where it is told to. What is listed need not be asked about.
func (l *lifecycle) enforce(ctx context.Context, listed map[imageID]bool) error {
	images, err := l.store.Images()
	if err != nil {
		return err
	}
	rand.Shuffle(len(images), func(i, j int) { images[i], images[j] = images[j], images[i] })
	asked := make(map[imageID]bool) // an image may have several tags
	for _, img := range images {
		id := imageID{cache.Repository{Upstream: img.Upstream, Name: img.Repository}, img.Digest}
		// An image that is not here has neither a media type nor anything to remove.
		if img.Expired == nil || img.MediaType == "" || img.Pinned || listed[id] || asked[id] || !l.enforces(id.Repository) {
			continue
		}
		if len(asked) == maxLifecycleImages {
			break
		}
		asked[id] = true
		if l.isGone(ctx, id) {
			l.remove(id)
		}
		if !sleep(ctx, l.pause) {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (l *lifecycle) enforces(repo cache.Repository) bool {
	entry, ok := l.cfg.Match(repo.Upstream)
	return ok && entry.EnforcesLifecycle() && entry.Allows(repo.Name)
}

// isGone reports whether the upstream says that it has no such image. Whatever
// else it says, or does not, leaves the image where it is.
func (l *lifecycle) isGone(ctx context.Context, id imageID) bool {
	registry, err := l.client.Registry(id.Upstream)
	if err != nil {
		return false
	}
	_, _, err = registry.Manifest(pace.Background(ctx), id.Name, id.Digest.String(), true)
	var refusal *reply.Error
	return errors.As(err, &refusal) && errors.Is(refusal, fs.ErrNotExist)
}

func (l *lifecycle) remove(id imageID) {
	freed, err := l.store.RemoveExpired(id.Repository, id.Digest)
	switch {
	case errors.Is(err, cache.ErrPinned), errors.Is(err, fs.ErrNotExist): // since it was looked up
	case err != nil:
		l.log.Warn("an expired image that is gone upstream was not removed", "repository", id.Repository, "digest", id.Digest, "error", err)
	default:
		l.log.Info("removed an expired image that is gone upstream", "repository", id.Repository, "digest", id.Digest, "bytes", freed)
	}
}
