package cache

import (
	"context"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/records"
)

// untidyGrowth is how much the records may grow until the index is tidied though nothing was
// removed, in bytes: upstreams confirm blobs that nobody fetches then.
const untidyGrowth = 16 << 20

// tidyIndex removes the records that nothing in the cache needs any more, if there may be any,
// and keeps the records within their bound. It takes no more than a part of the time.
func (s *Store) tidyIndex(ctx context.Context) {
	t, begin := &s.tidying, time.Now()
	grown := s.index.Bytes() - t.bytes
	if !t.complete || s.opts.KeepAll || s.index.Rebuilding() || begin.Before(t.notBefore) ||
		!s.untidy.Load() && grown < untidyGrowth && s.index.Bytes() <= s.maxRecords && !t.notBefore.IsZero() {
		return
	}
	s.untidy.Store(false)
	found, err := s.removeUnneeded(ctx)
	if err == nil && found.Bytes > s.maxRecords && s.evictLarge(found) {
		_, err = s.removeUnneeded(ctx)
	}
	if err == nil {
		_, err = s.index.Compact(ctx)
	}
	t.bytes = s.index.Bytes()
	t.notBefore = time.Now().Add(snapshotShare * time.Since(begin))
	if err != nil && ctx.Err() == nil {
		s.untidy.Store(true)
		s.blobs.Trouble(slog.LevelWarn, "records that nothing needs were left in the index", err)
	}
}

// removeUnneeded is [records.Index.Tidy] until nothing is left to be removed.
func (s *Store) removeUnneeded(ctx context.Context) (records.Tidied, error) {
	for {
		found, err := s.index.Tidy(ctx, records.Tidying{
			Here:         func(d digest.Digest) bool { return s.blobs.IsHereOrComing(d) || s.pins.Holds(d) },
			Forgotten:    func(id records.RepoDigest) { s.memory.members.Remove(id) },
			TagForgotten: func(repo Repository, tag string) { s.memory.tags.Remove(tagID{repo, tag}) },
		})
		if found.Removed > 0 {
			s.log.Debug("removed records that nothing needs", "records", found.Removed, "left", found.Bytes)
		}
		if err != nil || !found.More {
			return found, err
		}
	}
}

// evictLarge evicts the manifests with the most records until the records will take no more
// than half of their bound. It reports whether that evicted any.
func (s *Store) evictLarge(found records.Tidied) bool {
	excess := found.Bytes - s.maxRecords/2
	freed, err := s.blobs.Remove(blobs.ReasonRecords, func() ([]digest.Digest, error) {
		var chosen []digest.Digest
		for _, large := range found.Large {
			if excess <= 0 || large.Bytes <= manyRecords {
				break
			}
			if !s.pins.Holds(large.Digest) {
				chosen = append(chosen, large.Digest)
				excess -= large.Bytes
			}
		}
		return chosen, nil
	})
	if err != nil {
		s.blobs.Trouble(slog.LevelWarn, "manifests that name much were left", err)
	}
	return freed > 0
}
