package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
)

// What pins lack is tried again after the first of these, and after up to the
// second: a link that is down for days is not asked every minute.
const (
	pinRetry    = time.Minute
	maxPinRetry = time.Hour
)

// KeepPins fetches what pins hold and the cache lacks, one thing at a time, until
// ctx ends: damaged blobs and manifests, and for pins of all platforms the others.
// What cannot be fetched now is tried again later.
func (p *Proxy) KeepPins(ctx context.Context) {
	pauses := &backoff.ExponentialBackOff{
		InitialInterval:     pinRetry,
		RandomizationFactor: backoff.DefaultRandomizationFactor,
		Multiplier:          2,
		MaxInterval:         maxPinRetry,
	}
	pauses.Reset()
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.store.PinsLack():
		case <-again:
		}
		again = nil
		if err := p.bringLacking(ctx); err != nil && ctx.Err() == nil {
			pause := pauses.NextBackOff()
			again = time.After(pause)
			p.log.Warn("what pins hold could not be fetched; it is tried again", "error", err, "in", pause.Round(time.Second))
		} else {
			pauses.Reset()
		}
	}
}

// bringLacking tries everything once. A manifest that comes may tell of more.
func (p *Proxy) bringLacking(ctx context.Context) error {
	tried := make(map[digest.Digest]bool)
	var failed int
	var first error
	for more := true; more; {
		lacking, err := p.store.Lacking()
		if err != nil && first == nil {
			first = err
		}
		more = false
		for _, l := range lacking {
			if tried[l.Digest] {
				continue
			}
			tried[l.Digest], more = true, true
			err := p.bring(ctx, l)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err == nil {
				p.log.Info("fetched what a pin holds", "repository", l.Repository, "digest", l.Digest)
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

var errNotKept = errors.New("the cache could not keep it")

// bring fetches a manifest or a blob into the store.
func (p *Proxy) bring(ctx context.Context, l cache.Lack) error {
	if err := p.store.Degraded(); err != nil {
		return err
	}
	source, ok := p.opts.Upstreams(l.Upstream, l.Name)
	if !ok {
		return fmt.Errorf("%s: no configured upstream serves it", l.Repository)
	}
	t := target{route: route{digest: l.Digest}, repo: l.Repository, upstream: source.Upstream, timeout: source.Timeout}
	if l.Manifest {
		ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, errSlow)
		defer cancel()
		_, _, err := p.store.Manifest(ctx, t.repo, t.digest, ask(t))
		return err
	}
	blob, err := p.store.Open(ctx, t.digest, l.Size, p.fetch(t))
	if err != nil {
		return err
	}
	defer blob.Close()
	if blob.State == cache.Bypass {
		return fmt.Errorf("blob %s: %w", t.digest, errNotKept)
	}
	// A fill goes on without this. To read along is to wait for it, so that one
	// runs at a time.
	_, err = io.Copy(io.Discard, blob)
	return err
}

// bringPlatforms fetches the manifests of an image, so that what it takes is
// known.
func (p *Proxy) bringPlatforms(ctx context.Context, repo cache.Repository, reference string) error {
	tried := make(map[digest.Digest]bool)
	for more := true; more; {
		missing, err := p.store.MissingManifests(repo, reference)
		if err != nil {
			return err
		}
		more = false
		for _, l := range missing {
			if !tried[l.Digest] {
				tried[l.Digest], more = true, true
				if err := p.bring(ctx, l); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
