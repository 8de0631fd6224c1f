package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/records"
)

// patience is for how many cooldowns a tag may name no digest long enough. Then the newest digest
// that is older than one cooldown is followed: a tag that moves daily would never be otherwise.
const patience = 4

// coolingError refuses a tag whose first digest has not had its cooldown. It is
// fs.ErrPermission.
type coolingError struct{ until time.Time }

func (e coolingError) Error() string {
	return "tags.cooldown in Larder's configuration delays what the tag names until " +
		e.until.UTC().Format(time.RFC3339) + "; a pull by digest is not delayed"
}

// Is is for errors.Is.
func (coolingError) Is(target error) bool { return target == fs.ErrPermission }

// cool returns the manifest that a tag stands for, of which the upstream says that it names m
// now, and what is pending for the tag then. A coolingError comes with what is pending, too.
func (s *Store) cool(ctx context.Context, id tagID, before tagMemo, m Manifest, state State, ask Ask) (Manifest, State, records.Pending, error) {
	c := s.cooldown(id)
	known := before.Digest != ""
	if c.For <= 0 || before.Digest == m.Digest || !known && !c.First {
		return m, state, records.Pending{}, nil
	}
	now := s.now()
	moves, isNew := s.moves(ctx, id, m.Digest, now)
	latest := moves[len(moves)-1]
	switch {
	case now.Sub(latest.Seen) >= c.For:
		s.log.Info("the cooldown of a tag has ended", "repository", id.repo, "tag", id.tag, "before", before.Digest, "digest", m.Digest)
		return m, state, records.Pending{}, nil
	case !known:
		return Manifest{}, Miss, records.Pending{Moves: moves}, fmt.Errorf("tag %s:%s: %w", id.repo, id.tag, coolingError{latest.Seen.Add(c.For)})
	case isNew:
		s.log.Info("a tag has moved; it is followed after its cooldown", "repository", id.repo, "tag", id.tag,
			"served", before.Digest, "digest", m.Digest, "until", latest.Seen.Add(c.For))
	}
	if now.Sub(moves[0].Seen) >= patience*c.For {
		if m, state, later, ok := s.settle(ctx, id, moves, now.Add(-c.For), ask); ok {
			return m, state, records.Pending{Moves: later}, nil
		}
	}
	old, oldState, err := s.Manifest(ctx, id.repo, before.Digest, ask)
	if errors.Is(err, fs.ErrNotExist) { // neither here nor upstream: there is no earlier digest
		return m, state, records.Pending{}, nil
	}
	return old, oldState, records.Pending{Moves: moves}, err
}

// moves returns the digests that a tag has named since the one that it stands for. The last one is d,
// which the upstream says that it names now; isNew says that it named another one before.
func (s *Store) moves(ctx context.Context, id tagID, d digest.Digest, now time.Time) (moves []records.Move, isNew bool) {
	pending := s.index.Pending(id.repo, id.tag)
	moves = pending.Moved(d, now)
	if isNew = len(pending.Moves) == 0 || pending.Moves[len(pending.Moves)-1].Digest != d; isNew {
		moves[len(moves)-1].Seen = s.pushed(ctx, id, d, now)
	}
	return moves, isNew
}

// logOverride logs that a user has a tag followed to d before the end of its cooldown, if it has
// not ended.
func (s *Store) logOverride(ctx context.Context, by string, id tagID, before, d digest.Digest) {
	c := s.cooldown(id)
	if c.For <= 0 || before == d || before == "" && !c.First {
		return
	}
	now := s.now()
	moves, _ := s.moves(ctx, id, d, now)
	if until := moves[len(moves)-1].Seen.Add(c.For); now.Before(until) {
		s.log.Warn("a user overrides the cooldown of a tag", "user", by, "repository", id.repo, "tag", id.tag,
			"before", before, "digest", d, "until", until)
	}
}

// pushed returns when a tag's new digest was pushed, if the upstream tells that and it was before now;
// otherwise now, which is when it was first seen.
func (s *Store) pushed(ctx context.Context, id tagID, d digest.Digest, now time.Time) time.Time {
	if s.opts.Tags.Pushed == nil {
		return now
	}
	if at, ok := s.opts.Tags.Pushed(ctx, id.repo, d); ok && at.Before(now) {
		return at
	}
	return now
}

// settle returns the newest manifest that was first seen before a time, and the moves after it.
// ok is false if none of them can be had.
func (s *Store) settle(ctx context.Context, id tagID, moves []records.Move, before time.Time, ask Ask) (m Manifest, state State, later []records.Move, ok bool) {
	for i, move := range slices.Backward(moves) {
		if move.Seen.After(before) {
			continue
		}
		if m, state, err := s.Manifest(ctx, id.repo, move.Digest, ask); err == nil {
			s.log.Warn("a tag named no digest for as long as its cooldown; it is followed to the newest one that is older than that",
				"repository", id.repo, "tag", id.tag, "digest", m.Digest, "first seen", move.Seen)
			return m, state, moves[i+1:], true
		}
	}
	return Manifest{}, Miss, nil, false
}

func (s *Store) cooldown(id tagID) Cooldown {
	if s.opts.Tags.Cooldown == nil {
		return Cooldown{}
	}
	return s.opts.Tags.Cooldown(id.repo, id.tag)
}

// keepPending records what is pending for a tag whose record stays as it is, unless that is not
// the one any more that was read before the upstream was asked.
func (s *Store) keepPending(id tagID, pending records.Pending, old tagMemo) {
	s.tagging.Lock()
	before := s.index.Pending(id.repo, id.tag)
	var err error
	changed := !slices.Equal(before.Moves, pending.Moves) && !s.hasChangedLocked(id, old)
	if changed {
		err = s.index.PutPending(id.repo, id.tag, pending)
		if memo, known := s.tagLocked(id); known {
			memo.pending = pending
			s.memory.tags.Add(id, memo)
		}
	}
	s.tagging.Unlock()
	if err != nil {
		s.blobs.Trouble(slog.LevelError, "the cooldown of a tag was not recorded", err, "repository", id.repo, "tag", id.tag)
	}
	if changed && (len(before.Moves) > 0) != (len(pending.Moves) > 0) {
		s.pins.RefreshOrWarn()
	}
}

// pendingAfter is what stays pending for a tag that is set to a digest.
func (m *tagMemo) pendingAfter(d digest.Digest) records.Pending {
	if d == m.Digest {
		return records.Pending{Moves: m.pending.Moves}
	}
	i := slices.IndexFunc(m.pending.Moves, func(move records.Move) bool { return move.Digest == d })
	if i < 0 {
		return records.Pending{}
	}
	return records.Pending{Moves: m.pending.Moves[i+1:]}
}
