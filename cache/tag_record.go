package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/records"
)

// SetTag makes a tag name a manifest, as the upstream said at the given time. It returns
// fs.ErrNotExist if the manifest is not in the cache, or does not belong to the repository. The
// tag stays as it is if it is local and its image is in the cache, or if the upstream has
// confirmed it later.
func (s *Store) SetTag(repo Repository, tag string, d digest.Digest, confirmed time.Time) error {
	if _, ok := s.ManifestHere(repo, d); !ok {
		return fmt.Errorf("tag %s:%s: manifest %s is not in the cache: %w", repo, tag, d, fs.ErrNotExist)
	}
	id := tagID{repo, tag}
	for {
		before, _ := s.tag(id)
		if _, isLocal := s.localTag(id); isLocal || s.isConfirmedAfter(before, confirmed) ||
			s.keepTag(id, records.Tag{Digest: d, Checked: confirmed}, before.pendingAfter(d), before) {
			return nil
		}
	}
}

// isConfirmedAfter reports whether a tag was confirmed after a time. A time in the future comes
// from a clock that was wrong.
func (s *Store) isConfirmedAfter(memo tagMemo, at time.Time) bool {
	return memo.Checked.After(at) && !memo.Checked.After(s.now())
}

// releaseReplaced lets go of the image that a tag named before, once the new one is whole.
func (s *Store) releaseReplaced(id tagID) {
	if memo, ok := s.tag(id); ok && memo.Before != "" && s.replaces(id.repo, memo.Digest, memo.Before) {
		rec := memo.Tag
		rec.Before = ""
		s.keepTag(id, rec, memo.pending, memo)
	}
}

// keepTag records a tag that was confirmed. If it is pinned, what it named before is held until
// its new image is whole. pending is what stays pending for the tag.
//
// old is the record that the caller read before it asked the upstream. If another one has been
// written since, as by an import, that one stays, and keepTag returns false.
func (s *Store) keepTag(id tagID, rec records.Tag, pending records.Pending, old tagMemo) bool {
	kept := s.opts.Tags.Kept != nil && s.opts.Tags.Kept(id.repo, id.tag) // then the image is whole for its platforms
	if last := cmp.Or(old.Before, old.Digest); last != "" && last != rec.Digest && !kept &&
		s.pins.IsPinned(id.image()) && !s.replaces(id.repo, rec.Digest, last) {
		rec.Before = last
	}
	isKept, err := s.writeTag(id, rec, pending, old)
	if !isKept {
		return false
	}
	if !old.gone().IsZero() && pending.Gone.IsZero() {
		s.log.Info("the upstream has a tag again", "repository", id.repo, "tag", id.tag, "digest", rec.Digest)
	}
	if err != nil {
		s.blobs.Trouble(slog.LevelError, "a tag was not recorded", err, "repository", id.repo, "tag", id.tag)
	}
	before := old.Digest
	if rec.Before != old.Before {
		before = "" // what the pin holds changes
	}
	was, is := len(old.pending.Moves) > 0, len(pending.Moves) > 0
	s.tagMoved(id, before, rec.Digest, was != is || is && old.Digest != rec.Digest)
	return true
}

// tagMoved tells the pins that a tag has a new record, and whether a cooldown has begun, ended or
// got another digest: they hold what is served during one.
func (s *Store) tagMoved(id tagID, before, now digest.Digest, cooling bool) {
	if !s.pins.TagMoved(id.repo, id.tag, before, now) && cooling {
		s.pins.RefreshOrWarn()
	}
}

// writeTag writes the record of a tag, unless it is not old any more. The error is that of the
// index; in memory the record is written all the same.
func (s *Store) writeTag(id tagID, rec records.Tag, pending records.Pending, old tagMemo) (isWritten bool, err error) {
	s.tagging.Lock()
	defer s.tagging.Unlock()
	if s.hasChangedLocked(id, old) {
		return false, nil
	}
	s.memory.tags.Add(id, tagMemo{Tag: rec, pending: pending})
	waits := old.Digest == "" && s.opts.Tags.Cooldown != nil // then old does not tell what was pending
	if old.pending.IsZero() && pending.IsZero() && !waits {
		return true, s.index.PutTag(id.repo, id.tag, rec)
	}
	return true, s.index.PutTagPending(id.repo, id.tag, rec, pending)
}

// hasChangedLocked reports whether a tag has another record than the one that was read before. A
// record that was removed does not count: nothing contradicts what the upstream said meanwhile.
// The index knows times to the second. The caller has locked s.tagging.
func (s *Store) hasChangedLocked(id tagID, old tagMemo) bool {
	now, known := s.tagLocked(id)
	return known && (now.Digest != old.Digest || now.Local != old.Local || now.Checked.Unix() != old.Checked.Unix())
}

// forgetTag removes the record of a tag that is still the one that was read before.
func (s *Store) forgetTag(id tagID, old tagMemo) error {
	s.tagging.Lock()
	defer s.tagging.Unlock()
	if s.hasChangedLocked(id, old) {
		return nil
	}
	s.memory.tags.Remove(id)
	return s.index.RemoveTag(id.repo, id.tag)
}

// postpone makes the store wait before it asks again about a tag after a check failed. The
// tag is served stale meanwhile, unless the check found that it has moved.
func (s *Store) postpone(id tagID, err error) {
	s.noteTag(id, func(memo *tagMemo) {
		memo.superseded = errors.Is(err, manifest.ErrSchema1)
		memo.quietUntil = s.now().Add(s.opts.Tags.Negative)
	})
}

// noteTag changes what is remembered about a tag beside its record, and returns it. Nothing is
// changed if the tag has no record, or while the record of a tag is written: a disk that is
// busy must not hold up the client.
func (s *Store) noteTag(id tagID, change func(*tagMemo)) tagMemo {
	if !s.tagging.TryLock() {
		return tagMemo{}
	}
	defer s.tagging.Unlock()
	memo, known := s.tagLocked(id)
	if known {
		change(&memo)
		s.memory.tags.Add(id, memo)
	}
	return memo
}

// tag returns the record of a tag.
func (s *Store) tag(id tagID) (tagMemo, bool) {
	if memo, ok := s.memory.tags.Get(id); ok {
		return memo, true
	}
	if s.tagging.TryLock() {
		defer s.tagging.Unlock()
		return s.tagLocked(id)
	}
	return s.readTag(id) // the record of a tag is being written: this one may be about to change
}

// tagLocked is tag for a caller that has locked s.tagging.
func (s *Store) tagLocked(id tagID) (tagMemo, bool) {
	if memo, ok := s.memory.tags.Get(id); ok {
		return memo, true
	}
	memo, ok := s.readTag(id)
	if ok {
		s.memory.tags.Add(id, memo)
	}
	return memo, ok
}

// readTag reads the record of a tag from the index.
func (s *Store) readTag(id tagID) (tagMemo, bool) {
	rec, err := s.index.Tag(id.repo, id.tag)
	if err != nil {
		return tagMemo{}, false
	}
	return tagMemo{Tag: rec, pending: s.index.Pending(id.repo, id.tag)}, true
}

func tagKey(repo Repository, tag string) string { return "tag/" + repo.Image(tag) }

// Tags returns the tags of a repository that are in the cache, sorted.
func (s *Store) Tags(repo Repository) ([]string, error) { return s.index.Tags(repo) }
