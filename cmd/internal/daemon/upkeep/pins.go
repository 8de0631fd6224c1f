package upkeep

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

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
	// FetchManifest returns a manifest, which is in the cache then.
	FetchManifest(ctx context.Context, repo cache.Repository, dgst digest.Digest) (cache.Manifest, error)
	// FetchBlob returns when the blob is in the cache, and how many bytes that took. The
	// size is in bytes, 0 if it is not known.
	FetchBlob(ctx context.Context, repo cache.Repository, dgst digest.Digest, size int64) (fetched int64, err error)
}

// Pins fetches the content of pinned images that the cache is missing.
type Pins struct {
	store   *cache.Store
	fetcher Fetcher
	log     *slog.Logger
	wake    chan struct{} // capacity 1

	postponed func(host string) error // is an error for an upstream that must not be asked now
}

// NewPins returns the upkeep of a store's pins. It does nothing until Run is called.
// postponed returns an error for an upstream, by its host, that must not be asked now:
// nothing is fetched from there.
func NewPins(store *cache.Store, fetcher Fetcher, postponed func(host string) error, log *slog.Logger) *Pins {
	return &Pins{store: store, fetcher: fetcher, postponed: postponed, log: log, wake: make(chan struct{}, 1)}
}

// TryAgain has Run look at once for what is missing, as another upstream may be asked now.
func (p *Pins) TryAgain() {
	select {
	case p.wake <- struct{}{}:
	default: // it is about to look
	}
}

// Run fetches what pinned images are missing, one manifest or blob at a time, until
// ctx ends: content that was damaged, and for a pin of all platforms the platforms
// that no client has pulled. What cannot be fetched is tried again later.
func (p *Pins) Run(ctx context.Context) {
	ctx = cache.Unattended(ctx)
	pauses := pace.NewJitteredBackoff(pinRetry, maxPinRetry)
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.store.MissingPinnedChanged():
		case <-p.wake:
		case <-again:
		}
		again = nil
		postponed, err := p.fetchMissing(ctx)
		if err != nil && ctx.Err() == nil {
			pause := pauses.NextBackOff()
			again = time.After(pause)
			p.log.Warn("content of pinned images could not be fetched; trying again later", "error", err, "in", pause.Round(time.Second))
			continue
		}
		pauses.Reset()
		if len(postponed) > 0 {
			again = time.After(pace.PauseAfter(maxPinRetry, postponed...))
		}
	}
}

// fetchMissing tries each missing manifest and blob once, in random order. A manifest that
// arrives may name more of them. An upstream that does not answer is left alone until the
// next round. postponed has why something is missing that must not be fetched now.
func (p *Pins) fetchMissing(ctx context.Context) (postponed []error, err error) {
	tried := make(map[digest.Digest]bool)
	silent := make(map[string]bool)
	var failed int
	var first error
	for more := true; more; {
		missing, err := p.store.MissingPinned()
		if err != nil && first == nil {
			first = err
		}
		more = false
		rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
		for _, m := range missing {
			if tried[m.Digest] || silent[m.Upstream] {
				continue
			}
			if err := p.postponed(m.Upstream); err != nil {
				postponed = append(postponed, err)
				continue
			}
			tried[m.Digest], more = true, true
			err := p.fetch(ctx, m)
			switch {
			case ctx.Err() != nil:
				return postponed, context.Cause(ctx)
			case err == nil:
				p.log.Info("fetched content of a pinned image", "repository", m.Repository, "digest", m.Digest)
				continue
			case cache.IsPostponed(err):
				postponed = append(postponed, err)
				continue
			}
			failed++
			silent[m.Upstream] = !isAnswer(err)
			if first == nil {
				first = err
			}
		}
	}
	if failed > 1 {
		return postponed, fmt.Errorf("%w; and %d more", first, failed-1)
	}
	return postponed, first
}

func (p *Pins) fetch(ctx context.Context, missing cache.Missing) error {
	if err := p.store.Degraded(); err != nil {
		return err
	}
	var err error
	if missing.Manifest {
		_, err = p.fetcher.FetchManifest(ctx, missing.Repository, missing.Digest)
	} else {
		_, err = p.fetcher.FetchBlob(ctx, missing.Repository, missing.Digest, missing.Size)
	}
	return err
}
