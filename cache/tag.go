package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/records"
)

// staleWait is how long a client waits for a check if a stale answer is at hand. The check
// goes on and serves the next client. Lazy snapshotters give up after 3 s; a link that takes
// longer than this is as good as gone.
const staleWait = 2 * time.Second

// TagHere returns the manifest that a tag names, if the tag need not be confirmed. It asks no
// upstream and waits for nothing: it is the way of a hit.
func (s *Store) TagHere(repo Repository, tag string) (Manifest, bool) {
	id := tagID{repo, tag}
	memo, known := s.tag(id)
	if !known || !s.isFresh(id, memo.Checked, s.now()) {
		return Manifest{}, false
	}
	return s.cachedManifest(repo, memo.Digest)
}

// Tag returns the manifest that a tag names. A record that is fresh is served as it is; an
// older one is confirmed by one question for all clients that ask at the same time. If that
// fails, the old record is served (Stale) for as long as Freshness.StaleIfError allows. A
// tag that the upstream says is gone is forgotten.
func (s *Store) Tag(ctx context.Context, repo Repository, tag string, ask Ask) (Manifest, State, error) {
	old, known := s.cachedTag(repo, tag)
	switch known {
	case fresh:
		return old, Hit, nil
	case quiet:
		return old, Stale, nil
	case superseded:
		return Manifest{}, Hit, fmt.Errorf("tag %s:%s: %w", repo, tag, manifest.ErrSchema1)
	case servable:
	case unknown:
		if err := s.refused(tagKey(repo, tag)); err != nil {
			return Manifest{}, Hit, err
		}
	}
	wait := ctx
	if known == servable {
		var stop context.CancelFunc
		wait, stop = context.WithTimeout(ctx, staleWait)
		defer stop()
	}
	m, state, err := s.confirmTag(wait, repo, tag, ask)
	var gone goneError
	switch {
	case err == nil:
		return m, state, nil
	case ctx.Err() != nil && !errors.As(err, &gone):
		return Manifest{}, Miss, context.Cause(ctx)
	case known == servable && !errors.As(err, &gone) && !errors.Is(err, manifest.ErrSchema1):
		if wait.Err() != nil {
			err = errNotInTime
		}
		s.noteStale(tagID{repo, tag}, err)
		return old, Stale, nil
	}
	return Manifest{}, Miss, fmt.Errorf("tag %s:%s: %w", repo, tag, err)
}

// errNotInTime is why a stale tag is served while the check goes on.
var errNotInTime = fmt.Errorf("the upstream did not answer within %v", staleWait)

// noteStale logs why a tag is served stale: once for each reason, until the tag is confirmed
// again. Numbers in a reason, such as ports, do not make another one.
func (s *Store) noteStale(id tagID, err error) {
	reason := strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, err.Error())
	memo, known := s.tag(id)
	if !known || memo.stale == reason {
		return
	}
	memo.stale = reason
	s.memory.tags.Add(id, memo)
	s.log.Warn("a tag is served stale, as it could not be confirmed", "repository", id.repo, "tag", id.tag,
		"confirmed", memo.Checked, "error", err)
}

// tagState is what the cache can do for a tag without its upstream.
type tagState uint8

const (
	unknown    tagState = iota // nothing: it has no record, or that is too old, or its manifest is gone
	fresh                      // it need not be confirmed
	quiet                      // it may be served stale, and a check failed a moment ago
	superseded                 // a check found another image a moment ago, which the cache refuses
	servable                   // it may be served stale if a check fails
)

// cachedTag returns the manifest of a tag's record, and what can be done with it.
func (s *Store) cachedTag(repo Repository, tag string) (Manifest, tagState) {
	id := tagID{repo, tag}
	memo, ok := s.tag(id)
	if !ok {
		return Manifest{}, unknown
	}
	m, ok := s.cachedManifest(repo, memo.Digest)
	now := s.now()
	switch {
	case !ok:
		return Manifest{}, unknown
	case s.isFresh(id, memo.Checked, now):
		return m, fresh
	case now.Sub(memo.Checked) >= s.opts.Tags.StaleIfError:
		return Manifest{}, unknown
	case now.Before(memo.quietUntil) && memo.superseded:
		return m, superseded
	case now.Before(memo.quietUntil):
		return m, quiet
	}
	return m, servable
}

// isFresh reports whether a tag that was confirmed at the given time need not be confirmed
// again. A time in the future comes from a clock that was wrong.
func (s *Store) isFresh(id tagID, checked, now time.Time) bool {
	rules, age := &s.opts.Tags, now.Sub(checked)
	switch {
	case age < 0:
		return false
	case age < rules.TTL:
		return true
	case rules.Immutable == nil:
		return false
	}
	since, ok := rules.Immutable(id.repo, id.tag)
	return ok && age < rules.ImmutableTTL && checked.After(since)
}

// confirmTag asks the upstream about a tag, once for all clients that wait.
func (s *Store) confirmTag(ctx context.Context, repo Repository, tag string, ask Ask) (Manifest, State, error) {
	type answer struct {
		Manifest
		State
	}
	got, err := share(ctx, s, tagKey(repo, tag), func(ctx context.Context) (answer, error) {
		if m, ok := s.TagHere(repo, tag); ok {
			return answer{m, Hit}, nil // another request's answer has come since this one looked
		}
		before, _ := s.tag(tagID{repo, tag})
		m, state, err := s.askForTag(ctx, repo, tag, ask)
		s.countTagCheck(before.Digest, m.Digest, err)
		return answer{m, state}, err
	})
	return got.Manifest, got.State, err
}

// goneError says that the upstream has no such tag.
type goneError struct{ error }

func (e goneError) Unwrap() error { return e.error }

// askForTag asks the upstream about a tag and keeps the answer. A tag whose manifest is not
// in the cache is asked for with its manifest, which saves the client a round trip.
func (s *Store) askForTag(ctx context.Context, repo Repository, tag string, ask Ask) (Manifest, State, error) {
	id := tagID{repo, tag}
	memo, known := s.tag(id)
	if known {
		_, known = s.cachedManifest(repo, memo.Digest)
	}
	checked := s.now() // before the upstream may have moved the tag
	m, err := ask(ctx, tag, known)
	defer m.TakeDone()()
	s.refuse(tagKey(repo, tag), err)
	if errors.Is(err, fs.ErrNotExist) {
		s.memory.tags.Remove(id)
		return Manifest{}, Miss, goneError{errors.Join(err, s.index.RemoveTag(repo, tag))}
	}
	state := Miss
	switch {
	case err != nil:
	case m.Raw != nil:
		err = s.keepManifest(ctx, repo, &m)
	default:
		m, state, err = s.manifestOfTag(ctx, repo, tag, m, ask)
	}
	if err != nil {
		s.postpone(id, err)
		return Manifest{}, Miss, err
	}
	s.keepTag(id, records.Tag{Digest: m.Digest, Checked: checked}, memo.Digest)
	return m, state, nil
}

// manifestOfTag returns the manifest that an upstream says a tag names. It may be in the
// cache without belonging to the repository.
//
// If the upstream has no manifest with this digest, it is asked for that of the tag: some
// registries answer a HEAD with a wrong digest.
func (s *Store) manifestOfTag(ctx context.Context, repo Repository, tag string, head Manifest, ask Ask) (Manifest, State, error) {
	if m, ok := s.cachedManifest(repo, head.Digest); ok {
		return m, Hit, nil
	}
	if head.Digest.Validate() == nil {
		if m, _, err := manifest.ReadFile(s.folder.Blob(head.Digest), head.Digest); err == nil {
			return m, Hit, s.keepManifest(ctx, repo, &m)
		}
	}
	m, state, err := s.Manifest(ctx, repo, head.Digest, ask)
	if err == nil || CheckDigest(head.Digest) == nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, manifest.ErrMismatch) {
		return m, state, err
	}
	m, byTag := ask(ctx, tag, false)
	if byTag != nil {
		return Manifest{}, Miss, fmt.Errorf("%w; asked for the tag: %w", err, byTag)
	}
	return m, Miss, s.keepManifest(ctx, repo, &m)
}

// keepTag records a tag that was confirmed.
func (s *Store) keepTag(id tagID, rec records.Tag, before digest.Digest) {
	s.memory.tags.Add(id, tagMemo{Tag: rec})
	if err := s.index.PutTag(id.repo, id.tag, rec); err != nil {
		s.blobs.Trouble(slog.LevelError, "a tag was not recorded", err, "repository", id.repo, "tag", id.tag)
	}
	s.pins.TagMoved(id.repo, id.tag, before, rec.Digest)
}

// postpone makes the store wait before it asks again about a tag after a check failed. The
// tag is served stale meanwhile, unless the check found that it has moved.
func (s *Store) postpone(id tagID, err error) {
	if memo, known := s.tag(id); known {
		memo.superseded = errors.Is(err, manifest.ErrSchema1)
		memo.quietUntil = s.now().Add(s.opts.Tags.Negative)
		s.memory.tags.Add(id, memo)
	}
}

// tag returns the record of a tag.
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

func tagKey(repo Repository, tag string) string { return "tag/" + repo.Image(tag) }

// Tags returns the tags of a repository that are in the cache, sorted.
func (s *Store) Tags(repo Repository) ([]string, error) { return s.index.Tags(repo) }

// Results of checks of tags, in metrics.
const (
	tagNew       = "new"
	tagUnchanged = "unchanged"
	tagChanged   = "changed"
	tagMissing   = "missing"
	tagFailed    = "failed"
)

func tagResults() []string { return []string{tagNew, tagUnchanged, tagChanged, tagMissing, tagFailed} }

// countTagCheck counts a question about a tag, by what it named before and what it names now.
func (s *Store) countTagCheck(before, now digest.Digest, err error) {
	result := tagChanged
	switch {
	case errors.Is(err, fs.ErrNotExist):
		result = tagMissing
	case err != nil:
		result = tagFailed
	case before == "":
		result = tagNew
	case before == now:
		result = tagUnchanged
	}
	s.counts.TagChecks.Add(result)
}
