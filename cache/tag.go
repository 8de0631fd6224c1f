package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/fill"
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
	if !known || memo.Before != "" || !s.isFresh(id, memo, s.now()) {
		return Manifest{}, false
	}
	return s.cachedManifest(repo, memo.Digest)
}

// Tag returns the manifest that a tag names. A record that is fresh is served as it is; an
// older one is confirmed by one question for all clients that ask at the same time. If that
// fails, the old record is served (Stale) for as long as Freshness.StaleIfError allows. A
// tag that the upstream says is gone is served (Stale) for as long as Freshness.StaleIfGone
// allows, and then forgotten. A pinned tag is served without end.
//
// While the image of a pinned tag is not whole here, and the one before it is, the tag is
// confirmed for each client; if that fails, the one before is served.
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
	reason, news := Reason(err.Error()), false
	memo := s.noteTag(id, func(memo *tagMemo) {
		news = memo.stale != reason && !s.isFresh(id, *memo, s.now())
		if news {
			memo.stale = reason
		}
	})
	if news {
		s.log.Warn("a tag is served stale, as it could not be confirmed", "repository", id.repo, "tag", id.tag,
			"confirmed", memo.Checked, "error", err)
	}
}

// Reason returns the text of an error without what differs each time, such as ports and sizes: an
// error that repeats has the same reason, and needs to be logged once.
func Reason(text string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, text)
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
	m, isBefore := s.manifestBefore(repo, memo)
	if !isBefore {
		m, ok = s.cachedManifest(repo, memo.Digest)
	}
	now := s.now()
	switch {
	case !ok:
		return Manifest{}, unknown
	case s.isFresh(id, memo, now) && (!isBefore || s.needNotAsk(id, memo.Tag)):
		return m, fresh
	case !s.mayServeTag(id, memo, now):
		return Manifest{}, unknown
	case now.Before(memo.quietUntil) && memo.superseded:
		return m, superseded
	case now.Before(memo.quietUntil):
		return m, quiet
	}
	return m, servable
}

// manifestBefore returns the manifest that a pinned tag named before, while its new image is not
// whole here.
func (s *Store) manifestBefore(repo Repository, memo tagMemo) (Manifest, bool) {
	if memo.Before == "" {
		return Manifest{}, false
	}
	return s.cachedManifest(repo, memo.Before)
}

// needNotAsk reports whether a tag is served as it is, however old: it is local, its upstream is
// offline, or the caller keeps it.
func (s *Store) needNotAsk(id tagID, rec records.Tag) bool {
	if rec.Local {
		return true
	}
	offline, _ := s.offline(id.repo.Upstream)
	return offline || s.opts.Tags.Kept != nil && s.opts.Tags.Kept(id.repo, id.tag)
}

// mayServeTag reports whether a tag may be served that is not fresh.
func (s *Store) mayServeTag(id tagID, memo tagMemo, now time.Time) bool {
	if since := memo.gone(); !since.IsZero() {
		return s.servesGone(id, since, now)
	}
	since := memo.Checked
	if _, offline := s.offline(id.repo.Upstream); offline.After(since) {
		since = offline
	}
	return now.Sub(since) < s.opts.Tags.StaleIfError || s.pins.IsPinned(id.image())
}

// isFresh reports whether a tag need not be confirmed again. A time in the future comes from a
// clock that was wrong.
func (s *Store) isFresh(id tagID, memo tagMemo, now time.Time) bool {
	rules, age := &s.opts.Tags, now.Sub(memo.Checked)
	switch {
	case s.needNotAsk(id, memo.Tag):
		return true
	case !memo.gone().IsZero():
		return false
	case 0 <= age && age < rules.TTL, rules.Fixed != nil && rules.Fixed(id.repo, id.tag):
		return true
	case age < 0, rules.Immutable == nil:
		return false
	}
	since, ok := rules.Immutable(id.repo, id.tag)
	return ok && age < rules.ImmutableTTL && memo.Checked.After(since)
}

// offline reports whether an upstream is offline, and when it last was.
func (s *Store) offline(upstream string) (now bool, last time.Time) {
	if s.opts.Tags.Offline == nil {
		return false, time.Time{}
	}
	return s.opts.Tags.Offline(upstream)
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
		s.countTagCheck(before.Digest, m.Digest, state, err)
		return answer{m, state}, err
	})
	return got.Manifest, got.State, err
}

// askForTag asks the upstream about a tag and keeps the answer.
func (s *Store) askForTag(ctx context.Context, repo Repository, tag string, ask Ask) (Manifest, State, error) {
	id := tagID{repo, tag}
	before, _ := s.tag(id)
	checked := s.now() // before the upstream may have moved the tag
	ctx, age := withAge(ctx)
	m, state, err := s.askAboutTag(ctx, id, ask)
	checked = checked.Add(-time.Duration(age.Load()))
	var gone goneError
	switch {
	case errors.As(err, &gone):
		return s.tagGone(ctx, id, before, gone, ask)
	case err != nil:
		s.postpone(id, err)
		return Manifest{}, Miss, err
	}
	m, state, pending, err := s.cool(ctx, id, before, m, state, ask)
	if err != nil {
		s.keepPending(id, pending, before)
		s.refuse(tagKey(repo, tag), err)
		s.postpone(id, err)
		return Manifest{}, Miss, err
	}
	s.keepTag(id, records.Tag{Digest: m.Digest, Checked: checked}, pending, before)
	return m, state, nil
}

// askAboutTag asks the upstream which manifest a tag names, and keeps that manifest. One that is
// not in the cache is asked for with the tag, which saves a round trip. The error is a goneError
// if the upstream has no such tag.
func (s *Store) askAboutTag(ctx context.Context, id tagID, ask Ask) (Manifest, State, error) {
	memo, known := s.tag(id)
	if known {
		_, known = s.cachedManifest(id.repo, memo.Digest)
	}
	m, err := ask(ctx, id.tag, known)
	defer m.TakeDone()()
	s.refuse(tagKey(id.repo, id.tag), err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Manifest{}, Miss, goneError{err}
	case err != nil:
		return Manifest{}, Miss, err
	case m.Raw != nil:
		return m, Miss, s.keepManifest(ctx, id.repo, &m)
	}
	return s.manifestOfTag(ctx, id.repo, id.tag, m, ask)
}

// manifestOfTag returns the manifest that an upstream says a tag names. It may be in the
// cache without belonging to the repository: then the upstream's word is enough if another
// of its repositories has it, unless the upstream is one of Options.NeedsProof.
//
// If the upstream has no manifest with this digest, it is asked for that of the tag: some
// registries answer a HEAD with a wrong digest.
func (s *Store) manifestOfTag(ctx context.Context, repo Repository, tag string, head Manifest, ask Ask) (Manifest, State, error) {
	if m, ok := s.cachedManifest(repo, head.Digest); ok {
		return m, Hit, nil
	}
	if CheckDigest(head.Digest) == nil && s.word(repo, head.Digest) == records.ProvenElsewhere && !s.needsProof(repo) {
		if m, parts, err := manifest.ReadFile(s.folder.Blob(head.Digest), head.Digest); err == nil {
			s.storeManifest(ctx, repo, &m, parts, records.ByWord)
			return m, Hit, nil
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

// AskTag asks the upstream which manifest a tag names, however fresh the tag's record is, and
// keeps that manifest. During a cooldown it returns the one that the tag still stands for. The
// record stays as it is: [Store.SetTag] changes it. Callers that ask at
// the same time share one question. The error is fs.ErrNotExist if the upstream has no such tag.
//
// It does not ask about a tag that is local: see [ImportedImage].
func (s *Store) AskTag(ctx context.Context, repo Repository, tag string, ask Ask) (Manifest, error) {
	id := tagID{repo, tag}
	if m, ok := s.localTag(id); ok {
		return m, nil
	}
	return s.askTag(ctx, "ask/", id, func(ctx context.Context) (Manifest, error) {
		before, _ := s.tag(id)
		m, state, err := s.askAboutTag(ctx, id, ask)
		if err != nil {
			return Manifest{}, err
		}
		m, _, pending, err := s.cool(ctx, id, before, m, state, ask)
		if err != nil || before.Digest == "" || m.Digest == before.Digest {
			s.keepPending(id, pending, before)
		}
		return m, err
	})
}

// AskTagNow is AskTag that no cooldown delays: [Store.SetTag] may follow it. If there is a
// cooldown, the log says that it was overridden, and by is the name of the user there.
func (s *Store) AskTagNow(ctx context.Context, by string, repo Repository, tag string, ask Ask) (Manifest, error) {
	id := tagID{repo, tag}
	if m, ok := s.localTag(id); ok {
		return m, nil
	}
	return s.askTag(ctx, "ask now/"+by+"/", id, func(ctx context.Context) (Manifest, error) {
		before, _ := s.tag(id)
		m, _, err := s.askAboutTag(ctx, id, ask)
		if err == nil {
			s.logOverride(ctx, by, id, before.Digest, m.Digest)
		}
		return m, err
	})
}

// localTag returns the manifest of a tag that is local, and whether it is.
func (s *Store) localTag(id tagID) (Manifest, bool) {
	memo, ok := s.tag(id)
	if !ok || !memo.Local {
		return Manifest{}, false
	}
	return s.cachedManifest(id.repo, memo.Digest)
}

func (s *Store) askTag(ctx context.Context, kind string, id tagID, question func(context.Context) (Manifest, error)) (Manifest, error) {
	repo, tag := id.repo, id.tag
	m, err := share(ctx, s, kind+tagKey(repo, tag), question)
	if err != nil {
		return Manifest{}, fmt.Errorf("tag %s:%s: %w", repo, tag, err)
	}
	return m, nil
}

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
// One that the upstream was not asked does not count.
func (s *Store) countTagCheck(before, now digest.Digest, state State, err error) {
	if fill.IsPostponed(err) {
		return
	}
	result := tagChanged
	switch {
	case errors.Is(err, fs.ErrNotExist), state == Stale:
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
