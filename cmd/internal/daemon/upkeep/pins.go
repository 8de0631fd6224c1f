package upkeep

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/pace"
)

// A failed fetch is tried again after pinRetry, then after pauses that double up to
// maxPinRetry: a link that is down for days is not tried every minute.
const (
	pinRetry    = time.Minute
	maxPinRetry = time.Hour
)

// Fetcher fetches content from its upstream into the cache. A proxy.Proxy is one.
type Fetcher interface {
	// FetchManifest returns when the manifest is in the cache.
	FetchManifest(ctx context.Context, repo cache.Repository, dgst digest.Digest) error
	// FetchBlob returns when all of the blob has arrived. The size is in bytes, 0 if
	// it is not known.
	FetchBlob(ctx context.Context, repo cache.Repository, dgst digest.Digest, size int64) error
}

// Pins fetches the content of pinned images that the cache is missing.
type Pins struct {
	store   *cache.Store
	fetcher Fetcher
	log     *slog.Logger
}

// NewPins returns the upkeep of a store's pins. It does nothing until Run is called.
func NewPins(store *cache.Store, fetcher Fetcher, log *slog.Logger) *Pins {
	return &Pins{store: store, fetcher: fetcher, log: log}
}

// Run fetches what pinned images are missing, one manifest or blob at a time, until
// ctx ends: content that was damaged, and for a pin of all platforms the platforms
// that no client has pulled. What cannot be fetched is tried again later.
func (p *Pins) Run(ctx context.Context) {
	pauses := pace.NewBackoff(pinRetry, maxPinRetry)
	pauses.RandomizationFactor = backoff.DefaultRandomizationFactor
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.store.MissingPinnedChanged():
		case <-again:
		}
		again = nil
		if err := p.fetchMissing(ctx); err != nil && ctx.Err() == nil {
			pause := pauses.NextBackOff()
			again = time.After(pause)
			p.log.Warn("content of pinned images could not be fetched; trying again later", "error", err, "in", pause.Round(time.Second))
		} else {
			pauses.Reset()
		}
	}
}

// fetchMissing tries each missing manifest and blob once. A manifest that arrives may
// name more of them.
func (p *Pins) fetchMissing(ctx context.Context) error {
	tried := make(map[digest.Digest]bool)
	var failed int
	var first error
	for more := true; more; {
		missing, err := p.store.MissingPinned()
		if err != nil && first == nil {
			first = err
		}
		more = false
		for _, m := range missing {
			if tried[m.Digest] {
				continue
			}
			tried[m.Digest], more = true, true
			err := p.fetch(ctx, m)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err == nil {
				p.log.Info("fetched content of a pinned image", "repository", m.Repository, "digest", m.Digest)
				continue
			}
			failed++
			if first == nil {
				first = err
			}
		}
	}
	if failed > 1 {
		return fmt.Errorf("%w; and %d more", first, failed-1)
	}
	return first
}

func (p *Pins) fetch(ctx context.Context, missing cache.Missing) error {
	if err := p.store.Degraded(); err != nil {
		return err
	}
	if missing.Manifest {
		return p.fetcher.FetchManifest(ctx, missing.Repository, missing.Digest)
	}
	return p.fetcher.FetchBlob(ctx, missing.Repository, missing.Digest, missing.Size)
}

// FetchManifests fetches the missing manifests of an image, of all platforms, so that
// the cache knows how large the image is. The reference is a tag or a digest.
func (p *Pins) FetchManifests(ctx context.Context, repo cache.Repository, reference string) error {
	tried := make(map[digest.Digest]bool)
	for more := true; more; {
		missing, err := p.store.MissingManifests(repo, reference)
		if err != nil {
			return err
		}
		more = false
		for _, m := range missing {
			if !tried[m.Digest] {
				tried[m.Digest], more = true, true
				if err := p.fetch(ctx, m); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
