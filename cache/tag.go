package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/larder-registry/larder/cache/records"
)

// Freshness is how long what an upstream said holds. A zero duration means not
// at all.
type Freshness struct {
	// TTL is how long a tag is served without asking.
	TTL time.Duration
	// StaleIfError is how long after the last confirmation a tag is still served
	// while the upstream cannot be asked.
	StaleIfError time.Duration
	// Negative is how long a missing tag, manifest or blob, or a refusal, is
	// remembered; and how long an upstream that could not be asked about a tag
	// is left alone.
	Negative time.Duration

	// Immutable, if set, tells since when it has been known that an upstream does
	// not let a tag be moved; false where it does, or nothing is known. A tag that
	// was confirmed after that is served for ImmutableTTL without asking, or for
	// TTL if that is longer. It is called while clients wait, so it must not block.
	Immutable    func(repo Repository, tag string) (since time.Time, ok bool)
	ImmutableTTL time.Duration
}

// isFresh reports whether a tag that was confirmed then need not be confirmed
// again. What lies ahead was confirmed by a clock that was wrong.
func (f *Freshness) isFresh(repo Repository, tag string, checked, now time.Time) bool {
	age := now.Sub(checked)
	switch {
	case age < 0:
		return false
	case age < f.TTL:
		return true
	case f.Immutable == nil:
		return false
	}
	since, ok := f.Immutable(repo, tag)
	return ok && age < f.ImmutableTTL && checked.After(since)
}

// staleWait is how long a client waits for a check when a stale answer is at
// hand. The check goes on and serves the next. Lazy snapshotters give up after
// 3 s; a link that takes longer than this is as good as gone.
const staleWait = 2 * time.Second

// Tag returns the manifest that a tag points at. A record that is fresh is
// served as it is; an older one is confirmed by one question for all who ask
// at the same time; where that fails, the old record is served (Stale) for as
// long as Freshness.StaleIfError allows. A tag that the upstream says is gone
// is forgotten.
func (s *Store) Tag(ctx context.Context, repo Repository, tag string, ask Ask) (Manifest, State, error) {
	id := tagID{repo, tag}
	key := "tag/" + repo.Image(tag)
	memo, known := s.tag(id)
	m, have := Manifest{}, false
	if known {
		m, have = s.local(repo, memo.Digest)
	}
	now := s.opts.Now()
	if have && s.opts.Tags.isFresh(repo, tag, memo.Checked, now) {
		return m, Hit, nil
	}
	servable := have && now.Sub(memo.Checked) < s.opts.Tags.StaleIfError
	if servable && now.Before(memo.quiet) {
		return m, Stale, nil
	}
	if err := s.denied(key); err != nil && !servable {
		return Manifest{}, Hit, err
	}

	wait, stop := ctx, context.CancelFunc(func() {})
	if servable {
		wait, stop = context.WithTimeout(ctx, staleWait)
	}
	defer stop()
	type answer struct {
		Manifest
		State
	}
	got, err := share(wait, s, key, func(ctx context.Context) (answer, error) {
		if m, ok := s.TagHere(repo, tag); ok {
			return answer{m, Hit}, nil // another request's answer has come since this one looked
		}
		m, state, err := s.confirm(ctx, repo, tag, ask)
		s.metrics.tagChecked(memo.Digest, m.Digest, err)
		return answer{m, state}, err
	})
	var gone goneError
	switch {
	case err == nil:
		return got.Manifest, got.State, nil
	case errors.As(err, &gone):
		return Manifest{}, Miss, fmt.Errorf("tag %s:%s: %w", repo, tag, err)
	case ctx.Err() != nil:
		return Manifest{}, Miss, context.Cause(ctx)
	case servable:
		return m, Stale, nil
	}
	return Manifest{}, Miss, fmt.Errorf("tag %s:%s: %w", repo, tag, err)
}

// goneError is an upstream's word that there is no such tag.
type goneError struct{ error }

func (e goneError) Unwrap() error { return e.error }

// confirm asks the upstream about a tag, for all who wait. A tag that was never
// here is asked for with its manifest, which saves the client a round trip.
func (s *Store) confirm(ctx context.Context, repo Repository, tag string, ask Ask) (Manifest, State, error) {
	id := tagID{repo, tag}
	key := "tag/" + repo.Image(tag)
	memo, have := s.tag(id)
	if have {
		_, have = s.local(repo, memo.Digest)
	}
	checked := s.opts.Now() // before it may have changed its mind
	m, err := ask(ctx, tag, have)
	s.deny(key, err)
	if errors.Is(err, fs.ErrNotExist) {
		s.memory.tags.Remove(id)
		return Manifest{}, Miss, goneError{errors.Join(err, s.index.RemoveTag(repo, tag))}
	}
	state := Miss
	switch {
	case err != nil:
	case m.Raw != nil:
		err = s.keep(ctx, repo, &m)
	default:
		m, state, err = s.confirmed(ctx, repo, m, ask)
	}
	if err != nil {
		s.leaveAlone(id)
		return Manifest{}, Miss, err
	}
	rec := records.Tag{Digest: m.Digest, Checked: checked}
	s.memory.tags.Add(id, tagMemo{Tag: rec})
	if err := s.index.PutTag(repo, tag, rec); err != nil {
		s.trouble(slog.LevelError, "a tag was not recorded", err, "repository", repo, "tag", tag)
	}
	s.tagMoved(repo, tag, memo.Digest, m.Digest)
	return m, state, nil
}

// confirmed returns the manifest that an upstream says a tag of the repository
// points at. It may be here without belonging there.
func (s *Store) confirmed(ctx context.Context, repo Repository, head Manifest, ask Ask) (Manifest, State, error) {
	if m, ok := s.local(repo, head.Digest); ok {
		return m, Hit, nil
	}
	if head.Digest.Validate() == nil {
		if m, _, err := s.fromFile(head.Digest, head.MediaType); err == nil {
			return m, Hit, s.keep(ctx, repo, &m)
		}
	}
	return s.Manifest(ctx, repo, head.Digest, ask)
}

// leaveAlone has an upstream that could not be asked about a tag not be asked
// again for a while. The tag is served stale meanwhile.
func (s *Store) leaveAlone(id tagID) {
	if memo, known := s.tag(id); known {
		memo.quiet = s.opts.Now().Add(s.opts.Tags.Negative)
		s.memory.tags.Add(id, memo)
	}
}

func (s *Store) tag(id tagID) (tagMemo, bool) {
	if memo, ok := s.memory.tags.Get(id); ok {
		return memo, true
	}
	rec, err := s.index.Tag(id.repo, id.tag)
	if err != nil {
		return tagMemo{}, false
	}
	memo := tagMemo{Tag: rec}
	s.memory.tags.Add(id, memo)
	return memo, true
}

// Tags returns the tags of a repository that are known here, sorted.
func (s *Store) Tags(repo Repository) ([]string, error) {
	return s.index.Tags(repo)
}
