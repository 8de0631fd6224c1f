package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/records"
)

// ErrNoReferrers is the error of an upstream that does not list referrers. Clients ask it for
// a tag instead. It is fs.ErrNotExist.
var ErrNoReferrers = fmt.Errorf("the upstream does not answer with an index of referrers: %w", fs.ErrNotExist)

// AskReferrers asks an upstream for the whole list of the manifests that refer to a subject.
// It is called as an [Ask] is. The error is [ErrNoReferrers] if the upstream has no such
// lists, and another fs.ErrNotExist if it has no such repository.
type AskReferrers func(ctx context.Context) ([]ocispec.Descriptor, error)

// Referrers lists the manifests that refer to a subject, such as its signatures. The list is
// as fresh as a tag: see [Store.Tag]. While the upstream cannot be asked, the list is the one
// that it gave last, for as long as Freshness.StaleIfError allows, together with the manifests
// in the cache that the repository has and that refer to the subject (Stale, or Hit if it is
// offline). If there are
// neither, and the upstream is known to have no such lists, or the cache has the tag that
// clients ask for instead, the error is [ErrNoReferrers]. A failure is never an empty list.
//
// The caller must not change the list.
func (s *Store) Referrers(ctx context.Context, repo Repository, subject digest.Digest, ask AskReferrers) ([]ocispec.Descriptor, State, error) {
	if err := CheckDigest(subject); err != nil {
		return nil, Miss, fmt.Errorf("referrers of %q: %w", subject, err)
	}
	id := RepoDigest{Repository: repo, Digest: subject}
	memo := s.referrersOf(id)
	if s.isFreshList(id, memo) {
		return memo.Manifests, Hit, nil
	}
	list, state, err := s.referrersUnasked(id, memo)
	if err != nil && !errors.Is(err, ErrNoReferrers) {
		list, state, err = s.referrersAsked(ctx, id, memo, ask)
	}
	if err != nil {
		return nil, state, fmt.Errorf("referrers of %s@%s: %w", repo, subject, err)
	}
	return list, state, nil
}

// errAsk says that there is no answer without the upstream.
var errAsk = errors.New("the upstream is to be asked")

// referrersUnasked answers without the upstream if that is offline, or failed a moment ago.
func (s *Store) referrersUnasked(id RepoDigest, memo referrersMemo) ([]ocispec.Descriptor, State, error) {
	state := Stale
	switch offline, _ := s.offline(id.Upstream); {
	case offline:
		state = Hit
	case !s.now().Before(memo.quietUntil):
		return nil, Miss, errAsk
	}
	list, err := s.referrersHere(id, memo)
	return list, state, err
}

// referrersAsked answers as the upstream does or, if that fails, with what is here.
func (s *Store) referrersAsked(ctx context.Context, id RepoDigest, memo referrersMemo, ask AskReferrers) ([]ocispec.Descriptor, State, error) {
	state, err := Hit, s.refused(referrersKey(id))
	if err == nil {
		wait, stop := ctx, func() {}
		if s.mayServeStale(id, memo) {
			wait, stop = context.WithTimeout(ctx, staleWait)
		}
		defer stop()
		var list []ocispec.Descriptor
		list, state, err = s.confirmReferrers(wait, id, ask)
		if err == nil || s.decides(id, err) {
			return list, state, err
		}
		if ctx.Err() != nil {
			return nil, Miss, context.Cause(ctx)
		}
		if wait.Err() != nil {
			err = errNotInTime
		}
	}
	if s.decides(id, err) {
		return nil, state, err
	}
	list, hereErr := s.referrersHere(id, memo)
	switch {
	case hereErr == nil:
		s.noteStaleReferrers(id, err)
		return list, Stale, nil
	case errors.Is(hereErr, ErrNoReferrers): // not err: clients must not take it for a failure
		return nil, Stale, fmt.Errorf("%w; asked again: %s", hereErr, err.Error())
	}
	return nil, state, err
}

// decides reports whether an error is the upstream's answer, which no older answer replaces:
// it has no lists, or no such repository. What is pinned outlives the repository.
func (s *Store) decides(id RepoDigest, err error) bool {
	return errors.Is(err, ErrNoReferrers) || errors.Is(err, fs.ErrNotExist) && !s.pins.Holds(id.Digest)
}

// referrersOf returns what is known of a list.
func (s *Store) referrersOf(id RepoDigest) referrersMemo {
	if memo, ok := s.memory.referrers.get(id); ok {
		return memo
	}
	rec, err := s.index.Referrers(id.Repository, id.Digest)
	if err != nil {
		return referrersMemo{}
	}
	memo := referrersMemo{Referrers: rec}
	s.rememberReferrers(id, memo)
	return memo
}

func (s *Store) rememberReferrers(id RepoDigest, memo referrersMemo) {
	s.memory.referrers.add(id, memo, memo.bytes())
}

// bytes estimates what a list takes in memory.
func (m *referrersMemo) bytes() int {
	const each, perAnnotation = 256, 64 // beside the texts
	n := each + len(m.stale)
	for _, d := range m.Manifests {
		n += each + len(d.MediaType) + len(d.ArtifactType) + len(d.Digest) + len(d.Data)
		for key, value := range d.Annotations {
			n += perAnnotation + len(key) + len(value)
		}
		for _, url := range d.URLs {
			n += perAnnotation + len(url)
		}
	}
	return n
}

// isFreshList reports whether a list need not be asked for again. That an upstream has no
// lists is remembered as other refusals are. The list of an upstream that is offline is the
// one that it gave last, with what has come since, such as an import.
func (s *Store) isFreshList(id RepoDigest, memo referrersMemo) bool {
	offline, _ := s.offline(id.Upstream)
	age := s.now().Sub(memo.Checked)
	return !offline && !memo.Unsupported && 0 <= age && age < s.opts.Tags.TTL
}

// isUsable reports whether what an upstream said last may be repeated while it cannot be
// asked.
func (s *Store) isUsable(id RepoDigest, memo referrersMemo) bool {
	offline, last := s.offline(id.Upstream)
	since := memo.Checked
	if last.After(since) {
		since = last
	}
	return !memo.Checked.IsZero() && (offline || s.now().Sub(since) < s.opts.Tags.StaleIfError)
}

// mayServeStale reports whether there may be an answer without the upstream.
func (s *Store) mayServeStale(id RepoDigest, memo referrersMemo) bool {
	if s.isUsable(id, memo) || s.hasReferrersTag(id) {
		return true
	}
	manifests, err := s.index.ReferringTo(id.Digest)
	return err == nil && len(manifests) > 0
}

// confirmReferrers asks the upstream for a list, once for all clients that wait.
func (s *Store) confirmReferrers(ctx context.Context, id RepoDigest, ask AskReferrers) ([]ocispec.Descriptor, State, error) {
	type answer struct {
		list []ocispec.Descriptor
		State
	}
	got, err := share(ctx, s, referrersKey(id), func(ctx context.Context) (answer, error) {
		if memo := s.referrersOf(id); s.isFreshList(id, memo) {
			return answer{memo.Manifests, Hit}, nil // another request's answer has come since this one looked
		}
		list, err := s.askForReferrers(ctx, id, ask)
		return answer{list, Miss}, err
	})
	if err != nil {
		return nil, Miss, err
	}
	return got.list, got.State, nil
}

// askForReferrers asks the upstream for a list, and keeps the answer.
func (s *Store) askForReferrers(ctx context.Context, id RepoDigest, ask AskReferrers) ([]ocispec.Descriptor, error) {
	checked := s.now() // before the upstream may have a new one
	ctx, age := withAge(ctx)
	list, err := ask(ctx)
	checked = checked.Add(-time.Duration(age.Load()))
	if err == nil {
		err = manifest.CheckReferrers(list)
	}
	s.refuse(referrersKey(id), err)
	switch {
	case err == nil:
		s.keepReferrers(id, records.Referrers{Checked: checked, Manifests: list})
	case errors.Is(err, ErrNoReferrers):
		s.keepReferrers(id, records.Referrers{Checked: checked, Unsupported: true})
	case s.decides(id, err):
		s.memory.referrers.remove(id)
		err = errors.Join(err, s.index.RemoveReferrers(id.Repository, id.Digest))
	default:
		memo := s.referrersOf(id)
		memo.quietUntil = s.now().Add(s.opts.Tags.Negative)
		s.rememberReferrers(id, memo)
	}
	return list, err
}

// keepReferrers remembers what an upstream said.
func (s *Store) keepReferrers(id RepoDigest, rec records.Referrers) {
	s.rememberReferrers(id, referrersMemo{Referrers: rec})
	if s.hasSubject(id) {
		s.putReferrers(id, rec)
	}
}

// recordReferrers records a list that is in memory when its subject has come into the cache.
// For as long as that is there lists are recorded: clients may ask about any number of other
// digests.
func (s *Store) recordReferrers(id RepoDigest) {
	if memo, ok := s.memory.referrers.get(id); ok && !memo.Checked.IsZero() {
		s.putReferrers(id, memo.Referrers)
	}
}

func (s *Store) putReferrers(id RepoDigest, rec records.Referrers) {
	kept, err := s.index.PutReferrers(id.Repository, id.Digest, rec)
	switch {
	case err != nil:
		s.blobs.Trouble(slog.LevelWarn, "a list of referrers was not recorded", err, "repository", id.Repository, "subject", id.Digest)
	case !kept:
		s.log.Debug("a list of referrers is too large to be recorded", "repository", id.Repository, "subject", id.Digest)
	case !s.hasSubject(id): // it was evicted meanwhile, or could not be kept
		if err := s.index.RemoveReferrers(id.Repository, id.Digest); err != nil {
			s.log.Debug("a list of referrers was left without its subject", "subject", id.Digest, "error", err)
		}
	}
}

// hasSubject reports whether a manifest of a repository is in the cache.
func (s *Store) hasSubject(id RepoDigest) bool {
	rec, err := s.index.Blob(id.Digest)
	if err != nil || rec.MediaType == "" {
		return false
	}
	_, err = s.member(id.Repository, id.Digest)
	return err == nil
}

// noteStaleReferrers logs why a list is served stale: once for each reason, until the upstream
// gives another one.
func (s *Store) noteStaleReferrers(id RepoDigest, err error) {
	memo, reason := s.referrersOf(id), Reason(err.Error())
	if memo.stale == reason {
		return
	}
	memo.stale = reason
	s.rememberReferrers(id, memo)
	s.log.Warn("referrers are listed as far as they are known, as the upstream could not be asked",
		"repository", id.Repository, "subject", id.Digest, "confirmed", memo.Checked, "error", err)
}

const (
	// maxReferrersHere bounds the manifests of a repository that are listed from the cache: more of
	// them than images of a busy repository have signatures.
	maxReferrersHere = 1000
	// maxAnnotationsHere bounds what their descriptors take, in bytes.
	maxAnnotationsHere = 4 << 20
)

// referrersHere lists what is known without the upstream: its last list, and the manifests in
// the cache. The error is [ErrNoReferrers] if it has no lists, and another fs.ErrNotExist if
// nothing is known.
func (s *Store) referrersHere(id RepoDigest, memo referrersMemo) ([]ocispec.Descriptor, error) {
	usable := s.isUsable(id, memo)
	var list []ocispec.Descriptor
	listed := make(map[digest.Digest]bool)
	if usable {
		list = memo.Manifests[:len(memo.Manifests):len(memo.Manifests)]
		for _, d := range list {
			listed[d.Digest] = true
		}
	}
	manifests, err := s.index.ReferringTo(id.Digest)
	if err != nil {
		return nil, err
	}
	bytes, count := 0, 0
	for _, d := range manifests {
		member, err := s.member(id.Repository, d)
		if listed[d] || err != nil || !member.Manifest || !member.served {
			continue
		}
		if count++; count > maxReferrersHere {
			break
		}
		m, ok := s.memory.manifests.Get(d)
		if !ok {
			m, ok = s.manifestOnDisk(d, member.Member)
		}
		if bytes += len(m.Raw); !ok || bytes > maxAnnotationsHere {
			continue
		}
		list = append(list, m.Referrer())
	}
	switch {
	case len(list) > 0, usable && !memo.Unsupported:
		return list, nil
	case usable, s.hasReferrersTag(id):
		return nil, ErrNoReferrers
	}
	return nil, fs.ErrNotExist
}

// hasReferrersTag reports whether the tag is in the cache under which an upstream without
// lists has the referrers of a subject.
func (s *Store) hasReferrersTag(id RepoDigest) bool {
	_, known := s.tag(tagID{id.Repository, ReferrersTag(id.Digest)})
	return known
}

// ReferrersTag returns the tag under which an upstream without lists of referrers has the
// index of those of a subject (distribution-spec, "Referrers Tag Schema").
func ReferrersTag(subject digest.Digest) string {
	algorithm, hex := subject.Algorithm().String(), subject.Encoded()
	return algorithm[:min(len(algorithm), 32)] + "-" + hex[:min(len(hex), 64)]
}

func referrersKey(id RepoDigest) string { return "referrers/" + id.Image(id.Digest.String()) }
