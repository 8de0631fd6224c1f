package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/records"
)

// A repository is served what is in the cache if it is known to have it. A manifest's word is
// not enough: whoever can push a manifest to one upstream could name the layers of another.
// FORMAT.md, "Proofs", has the rule.

// isServed reports whether the clients of a repository get from the cache what it is a member
// of by this record.
func (s *Store) isServed(repo Repository, rec records.Member) bool {
	switch rec.Proven {
	case records.Proven:
		return true
	case records.NotTold:
		return s.opts.OnlyProven == nil || !s.opts.OnlyProven(repo.Upstream)
	case records.ProvenElsewhere:
		return !s.needsProof(repo)
	case records.ByWord:
	}
	return false
}

// needsProof reports whether a repository of the same upstream cannot vouch for this one.
func (s *Store) needsProof(repo Repository) bool {
	return s.opts.NeedsProof != nil && s.opts.NeedsProof(repo.Upstream)
}

// member returns what is known of a blob or manifest in a repository. It returns
// fs.ErrNotExist if the repository is not known to have it.
func (s *Store) member(repo Repository, d digest.Digest) (membership, error) {
	id := records.RepoDigest{Repository: repo, Digest: d}
	if known, ok := s.memory.members.Get(id); ok {
		return known, nil
	}
	rec, err := s.index.Member(repo, d)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("membership could not be read", "repository", repo, "digest", d, "error", err)
		}
		return membership{}, err
	}
	known := membership{rec, s.isServed(repo, rec)}
	if later, ok, _ := s.memory.members.PeekOrAdd(id, known); ok {
		return later, nil // it has changed since it was read
	}
	return known, nil
}

// remember keeps a membership in memory. The caller has locked s.joining.
func (s *Store) remember(repo Repository, d digest.Digest, rec records.Member) {
	s.memory.members.Add(records.RepoDigest{Repository: repo, Digest: d}, membership{rec, s.isServed(repo, rec)})
}

// join adds to memberships of a repository what is known already: another manifest may name
// the same digest as something else, and a proof is not lost. It calls record with them, and
// keeps them in memory if that succeeds.
func (s *Store) join(repo Repository, members map[digest.Digest]records.Member, record func(map[digest.Digest]records.Member) error) error {
	s.joining.Lock()
	defer s.joining.Unlock()
	all := make(map[digest.Digest]records.Member, len(members))
	for d, rec := range members {
		if known, err := s.member(repo, d); err == nil {
			rec = rec.With(known.Member)
		}
		if rec.Proven == records.ByWord {
			rec.Proven = s.word(repo, d)
		}
		all[d] = rec
	}
	if err := record(all); err != nil {
		return err
	}
	for d, rec := range all {
		s.remember(repo, d, rec)
	}
	return nil
}

// word is what a manifest's word is worth, in a repository.
func (s *Store) word(repo Repository, d digest.Digest) records.Proof {
	proof := records.ByWord
	err := s.index.EachOf(d, repo.Upstream, func(_ Repository, rec records.Member) {
		switch rec.Proven {
		case records.Proven, records.ProvenElsewhere, records.NotTold:
			proof = records.ProvenElsewhere
		case records.ByWord:
		}
	})
	if err != nil {
		return records.ByWord
	}
	return proof
}

// addMember records a membership beside what is known of the digest in the repository.
func (s *Store) addMember(repo Repository, d digest.Digest, rec records.Member) {
	var err error
	_ = s.join(repo, map[digest.Digest]records.Member{d: rec}, func(members map[digest.Digest]records.Member) error {
		err = s.index.PutMember(repo, d, members[d])
		return nil // in memory the membership is known
	})
	if err != nil {
		s.blobs.Trouble(slog.LevelWarn, "a membership was not recorded", err, "repository", repo, "digest", d)
	}
}

// came records which repositories are known to have content that is about to be kept. If it
// was not in the cache before, all that others of an earlier release say of it is a
// manifest's word.
func (s *Store) came(d digest.Digest, proven ...Repository) {
	_, err := s.index.Blob(d)
	s.prove(d, errors.Is(err, fs.ErrNotExist), proven...)
}

// prove records that repositories are known to have a blob or manifest, and what that means
// for others of their upstreams. isNew says that it was not in the cache before.
func (s *Store) prove(d digest.Digest, isNew bool, proven ...Repository) {
	if err := s.recordProof(d, isNew, proven); err != nil {
		s.blobs.Trouble(slog.LevelWarn, "memberships were not recorded", err, "digest", d)
	}
}

func (s *Store) recordProof(d digest.Digest, isNew bool, proven []Repository) error {
	s.joining.Lock()
	defer s.joining.Unlock()
	known := make(map[Repository]records.Member)
	err := s.index.EachOf(d, "", func(repo Repository, rec records.Member) { known[repo] = rec })
	has := make(map[string]bool) // upstreams
	changed := make(map[Repository]records.Member)
	for _, repo := range proven {
		rec, isMember := known[repo]
		switch {
		case !isMember:
			rec.Size = -1
		case rec.Proven == records.Proven:
			continue
		}
		rec.Proven = records.Proven
		known[repo], changed[repo] = rec, rec
	}
	for repo, rec := range known {
		if rec.Proven == records.Proven || !isNew && rec.Proven != records.ByWord {
			has[repo.Upstream] = true
		}
	}
	for repo, rec := range known {
		was := rec.Proven
		switch {
		case was == records.Proven, !isNew && was != records.ByWord:
		case has[repo.Upstream]:
			rec.Proven = records.ProvenElsewhere
		default:
			rec.Proven = records.ByWord
		}
		if rec.Proven != was {
			changed[repo] = rec
		}
	}
	for repo, rec := range changed {
		s.remember(repo, d, rec)
	}
	if len(changed) == 0 {
		return err
	}
	return errors.Join(err, s.index.PutMembers(d, changed))
}

// filled is came for a fill.
func (s *Store) filled(d digest.Digest, proven []Source) {
	repos := make([]Repository, 0, len(proven))
	for _, source := range proven {
		if source.Repository != "" {
			repos = append(repos, Repository{Upstream: source.Upstream, Name: source.Repository})
		}
	}
	s.came(d, repos...)
}

// forgotten drops what is in memory of a blob that was removed from the disk.
func (s *Store) forgotten(d digest.Digest) {
	s.untidy.Store(true)
	s.memory.forget(d)
	err := s.index.EachOf(d, "", func(repo Repository, _ records.Member) {
		s.memory.members.Remove(records.RepoDigest{Repository: repo, Digest: d})
	})
	if err != nil {
		s.memory.members.Purge()
	}
}

// kept asks for proofs of a blob that a fill has brought, and tells that it is here.
func (s *Store) kept(d digest.Digest) {
	s.seekProofs(d)
	s.opts.Filled(d)
}

// MayHave reports whether a repository may be given a blob or manifest that its upstream is known to have, though not in
// which repository: it was proven that this one has it, or a manifest of it names it and all repositories of the upstream
// are allowed.
func (s *Store) MayHave(repo Repository, d digest.Digest) bool {
	known, err := s.member(repo, d)
	return err == nil && (known.served || !s.needsProof(repo))
}

// IsProven reports whether a blob or manifest is complete here, and it was proven that this repository has it.
func (s *Store) IsProven(repo Repository, d digest.Digest) bool {
	known, err := s.member(repo, d)
	return err == nil && known.Proven == records.Proven && s.isOnDisk(d)
}

// Source is a source of a blob in a repository. It repeats an upstream's refusal for
// Freshness.Negative, rather than ask again: a pod whose credentials may read manifests but not
// layers starts over and over as well. What is in the cache needs no fetch, but where the
// repository is not known to have it, the source has to confirm it. size is what a manifest
// tells, in bytes, or 0.
func (s *Store) Source(repo Repository, d digest.Digest, size int64, fetch Fetch) Source {
	key := "fetch/" + repo.String() + "@" + d.String()
	source := Source{
		Upstream:   repo.Upstream,
		Repository: repo.Name,
		Size:       size,
		Fetch: func(ctx context.Context, r Range) (Content, error) {
			if err := s.refused(key); err != nil {
				return Content{}, err
			}
			content, err := fetch(ctx, r)
			s.refuse(key, err)
			return content, err
		},
	}
	if s.needsProof(repo) {
		source.Realm = repo.String()
	}
	source.Member = &claim{store: s, repo: repo, digest: d, source: source}
	return source
}

// claim is a blob as one repository has it, or claims to. It is a [fill.Member].
type claim struct {
	store  *Store
	repo   Repository
	digest digest.Digest
	source Source // without its Member
}

// IsKnown is for [fill.Member].
func (c *claim) IsKnown() bool {
	known, err := c.store.member(c.repo, c.digest)
	return err == nil && known.served
}

// Prove is for [fill.Member]. The source is asked once for all clients that wait.
func (c *claim) Prove(ctx context.Context) error {
	if c.IsKnown() {
		return nil
	}
	_, err := share(ctx, c.store, "proof/"+c.repo.String()+"@"+c.digest.String(), func(ctx context.Context) (struct{}, error) {
		if c.IsKnown() {
			return struct{}{}, nil // another question's answer has come since this one looked
		}
		err := c.confirm(ctx)
		c.store.countProof(err)
		return struct{}{}, err
	})
	return err
}

func (c *claim) confirm(ctx context.Context) error {
	file, info, err := c.store.folder.OpenBlob(c.digest)
	if err != nil {
		return fill.DiskError{Err: err}
	}
	defer file.Close()
	if err := fill.Confirm(ctx, c.source, file, info.Size(), c.store.opts.Retry); err != nil {
		return fmt.Errorf("confirm blob %s@%s: %w", c.repo, c.digest, err)
	}
	c.store.prove(c.digest, false, c.repo)
	return nil
}

// Results of questions whether a repository has what is in the cache, in metrics.
const (
	proofConfirmed = "confirmed"
	proofRefused   = "refused"
	proofFailed    = "failed"
)

func proofResults() []string { return []string{proofConfirmed, proofRefused, proofFailed} }

// countProof counts a question, unless the upstream was not to be asked.
func (s *Store) countProof(err error) {
	switch {
	case err == nil:
		s.counts.Proofs.Add(proofConfirmed)
	case IsRefusal(err):
		s.counts.Proofs.Add(proofRefused)
	case !fill.IsPostponed(err):
		s.counts.Proofs.Add(proofFailed)
	}
}

// IsRefusal reports whether an error is an upstream's answer that it does not have some content
// or does not give it, or that shows that it has none which the cache could keep. The same
// question would soon bring the same answer.
func IsRefusal(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) ||
		errors.Is(err, manifest.ErrMismatch) || errors.Is(err, manifest.ErrRefused)
}
