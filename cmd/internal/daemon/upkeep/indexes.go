package upkeep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/lifecycle"
	"github.com/larder-registry/larder/upstream/pace"
)

// indexes knows what the indexes list that are not in the cache, for the evaluation
// of lifecycle policies. It fetches their manifests and remembers their children; the
// content of a digest never changes. It belongs to one goroutine.
type indexes struct {
	log      *slog.Logger
	pause    time.Duration // between two fetches
	children *lru.LRU[digest.Digest, []digest.Digest]
	absent   *lru.LRU[digest.Digest, time.Time] // when the upstream said that it does not have the index
}

const (
	// maxIndexes bounds how many indexes of a repository are fetched in one round. The
	// next round goes on with the others.
	maxIndexes = 200
	// maxKnownIndexes bounds the indexes that are remembered, some 500 bytes each.
	maxKnownIndexes = 10_000
	// absentFor is how long an index that the upstream does not have is not asked for
	// again. It may come back from the archive.
	absentFor = 24 * time.Hour
	// maxNesting bounds how deep indexes list indexes; real ones have one level.
	maxNesting = 3
)

func newIndexes(log *slog.Logger, pause time.Duration) *indexes {
	children, _ := lru.NewLRU[digest.Digest, []digest.Digest](maxKnownIndexes, nil) // fails only for a size that is not positive
	absent, _ := lru.NewLRU[digest.Digest, time.Time](maxKnownIndexes, nil)
	return &indexes{log: log, pause: pause, children: children, absent: absent}
}

// complete sets the children of indexes among the images, those on which it depends
// whether an image in the cache has expired. An index that cannot be fetched stays
// unread, which protects images. The error is that of an ended context.
func (x *indexes) complete(ctx context.Context, registry *upstream.Registry, repo cache.Repository,
	policy lifecycle.Policy, images []lifecycle.Image, cached func(digest.Digest) bool) error {
	at := make(map[digest.Digest]int, len(images))
	for i, img := range images {
		at[img.Digest] = i
	}
	left := maxIndexes
	for range maxNesting {
		progress := false
		for _, dgst := range policy.Unread(images, time.Now(), cached) {
			children, known := x.children.Get(dgst)
			if !known {
				if at, ok := x.absent.Get(dgst); ok && time.Since(at) < absentFor {
					continue
				}
				if left--; left < 0 {
					return nil
				}
				var err error
				if children, err = fetchIndex(ctx, registry, repo.Name, dgst); err != nil {
					if ctx.Err() != nil {
						return context.Cause(ctx)
					}
					x.log.Debug("what an index lists could not be read, so its repository's untagged images count as unexpired",
						"repository", repo, "digest", dgst, "error", err)
					if !errors.Is(err, fs.ErrNotExist) {
						return nil
					}
					x.absent.Add(dgst, time.Now()) // in the archive, or gone since
				} else {
					x.children.Add(dgst, children)
				}
				if !sleep(ctx, x.pause) {
					return context.Cause(ctx)
				}
				if err != nil {
					continue
				}
			}
			images[at[dgst]].Children, progress = children, true
		}
		if !progress {
			return nil
		}
	}
	return nil
}

// fetchIndex returns what an index lists: not nil, even if that is nothing. Requests
// of clients go first.
func fetchIndex(ctx context.Context, registry *upstream.Registry, repository string, dgst digest.Digest) ([]digest.Digest, error) {
	_, raw, err := registry.Manifest(pace.Background(ctx), repository, dgst.String(), false)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if got := dgst.Algorithm().FromBytes(raw); got != dgst {
		return nil, fmt.Errorf("read the index %s of %s: the content has the digest %s", dgst, repository, got)
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("read the index %s of %s: %w", dgst, repository, err)
	}
	children := make([]digest.Digest, len(index.Manifests))
	for i, child := range index.Manifests {
		children[i] = child.Digest
	}
	return children, nil
}
