package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/larder-registry/larder/cache/records"
)

// goneError says that the upstream has no such tag.
type goneError struct{ error }

func (e goneError) Unwrap() error { return e.error }

// tagGone keeps the upstream's answer that it has no such tag. A tag that may be served all the
// same is served as it was; another one is forgotten. old is its record from before the question.
func (s *Store) tagGone(ctx context.Context, id tagID, old tagMemo, gone goneError, ask Ask) (Manifest, State, error) {
	memo, stays := s.noteGone(id, old)
	if !stays {
		return Manifest{}, Miss, goneError{errors.Join(gone.error, s.forgetTag(id, old))}
	}
	if m, ok := s.manifestBefore(id.repo, memo); ok {
		return m, Stale, nil
	}
	m, _, err := s.Manifest(ctx, id.repo, memo.Digest, ask)
	if err != nil {
		return Manifest{}, Miss, goneError{fmt.Errorf("%w; the manifest that it named before: %w", gone.error, err)}
	}
	return m, Stale, nil
}

// noteGone records since when a tag is gone, and reports whether it may be served all the same.
// It may if the tag was set while the upstream was asked; then nothing is recorded.
func (s *Store) noteGone(id tagID, old tagMemo) (memo tagMemo, stays bool) {
	now, since := s.now(), old.gone()
	news := since.IsZero()
	if news {
		since = now
	}
	serves := old.Digest != "" && s.servesGone(id, since, now)
	s.tagging.Lock()
	memo, known := s.tagLocked(id)
	if isSet := s.hasChangedLocked(id, old); isSet || !known || !serves {
		s.tagging.Unlock()
		return memo, isSet
	}
	cooling := len(memo.pending.Moves) > 0
	memo.pending = records.Pending{Gone: since}
	memo.quietUntil = now.Add(max(s.opts.Tags.TTL, s.opts.Tags.Negative))
	s.memory.tags.Add(id, memo)
	var err error
	if news {
		err = s.index.PutPending(id.repo, id.tag, memo.pending)
	}
	s.tagging.Unlock()
	if cooling {
		s.pins.RefreshOrWarn()
	}
	if err != nil {
		s.blobs.Trouble(slog.LevelError, "that a tag is gone upstream was not recorded", err, "repository", id.repo, "tag", id.tag)
	}
	if news {
		s.log.Warn("the upstream does not have a tag any more; it is served as it was",
			"repository", id.repo, "tag", id.tag, "digest", memo.Digest, "pinned", s.pins.IsPinned(id.image()))
	}
	return memo, true
}

// servesGone reports whether a tag may be served that the upstream has not had since then.
func (s *Store) servesGone(id tagID, since, now time.Time) bool {
	return s.opts.Tags.StaleIfGone > 0 && now.Sub(since) < s.opts.Tags.StaleIfGone || s.pins.IsPinned(id.image())
}
