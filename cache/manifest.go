package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
)

// Ask asks an upstream for a manifest by tag or digest; with head for its digest, type and
// size only, though an answer may bring the rest as well. It is called on behalf of all
// clients that wait, under the store's context. The error is fs.ErrNotExist if the upstream
// says that it has no such manifest, and fs.ErrPermission if it refuses it. Both are repeated to others for
// Freshness.Negative, unless the error has a method Personal() bool that returns true. The store calls [Manifest.Done] when it has checked and
// kept the answer.
type Ask func(ctx context.Context, reference string, head bool) (Manifest, error)

// ManifestHere returns a manifest that is in the cache and belongs to the repository. It
// asks no upstream and waits for nothing: it is the way of a hit.
func (s *Store) ManifestHere(repo Repository, d digest.Digest) (Manifest, bool) {
	if CheckDigest(d) != nil {
		return Manifest{}, false
	}
	return s.cachedManifest(repo, d)
}

// Look is ManifestHere for people who look at the cache: it does not count as a use.
func (s *Store) Look(repo Repository, d digest.Digest) (Manifest, bool) {
	if CheckDigest(d) != nil {
		return Manifest{}, false
	}
	return s.findManifest(repo, d)
}

// Manifest returns the manifest with this digest, from the cache or through ask. It is kept,
// with its membership in the repository and that of everything it names, when it has proved
// to be what it claims. Where it is in the cache and the repository is not known to have it,
// the upstream has to send it as well.
func (s *Store) Manifest(ctx context.Context, repo Repository, d digest.Digest, ask Ask) (Manifest, State, error) {
	if err := CheckDigest(d); err != nil {
		return Manifest{}, "", fmt.Errorf("manifest %q: %w", d, err)
	}
	if m, ok := s.cachedManifest(repo, d); ok {
		return m, Hit, nil
	}
	key := "manifest/" + repo.String() + "@" + d.String()
	if err := s.refused(key); err != nil {
		return Manifest{}, Hit, err
	}
	known, err := s.member(repo, d)
	proves := err == nil && !known.served && s.isOnDisk(d)
	m, err := share(ctx, s, key, func(ctx context.Context) (Manifest, error) {
		m, err := ask(ctx, d.String(), false)
		defer m.TakeDone()()
		if err == nil && m.Digest != d {
			err = fmt.Errorf("asked for %s, got %s: %w", d, m.Digest, manifest.ErrMismatch)
		}
		if err == nil {
			err = s.keepManifest(ctx, repo, &m)
		}
		s.refuse(key, err)
		if proves {
			s.countProof(err)
		}
		return m, err
	})
	if err != nil {
		return Manifest{}, Miss, fmt.Errorf("manifest %s@%s: %w", repo, d, err)
	}
	return m, Miss, nil
}

// cachedManifest returns a manifest that is in the cache and belongs to the repository, for a client.
func (s *Store) cachedManifest(repo Repository, d digest.Digest) (Manifest, bool) {
	m, ok := s.findManifest(repo, d)
	if ok {
		s.useImage(d)
	}
	return m, ok
}

func (s *Store) findManifest(repo Repository, d digest.Digest) (Manifest, bool) {
	member, err := s.member(repo, d)
	if err != nil || !member.served {
		return Manifest{}, false
	}
	m, ok := s.memory.manifests.Get(d)
	if !ok {
		if m, ok = s.manifestOnDisk(d, member.Member); !ok {
			return Manifest{}, false
		}
		s.memory.addManifest(m)
	}
	return m, true
}

// manifestOnDisk reads a manifest from its file. If the index was lost, the file also tells
// its record.
func (s *Store) manifestOnDisk(d digest.Digest, member records.Member) (Manifest, bool) {
	rec, err := s.index.Blob(d)
	path := s.folder.Blob(d)
	if member.Manifest && rec.Size == 0 {
		m, rec, err := manifest.ReadRecord(path, d)
		if err != nil {
			return Manifest{}, false
		}
		if err := s.index.PutBlob(d, rec); err != nil {
			s.blobs.Trouble(slog.LevelWarn, "a manifest was not recorded", err, "digest", d)
		}
		return m, true
	}
	if err != nil || rec.MediaType == "" || rec.Size > MaxManifest {
		return Manifest{}, false
	}
	raw, err := s.readManifest(d)
	if err != nil {
		return Manifest{}, false
	}
	if d.Algorithm().FromBytes(raw) != d {
		s.log.Error("a manifest in the cache does not match its digest; it is fetched again", "digest", d)
		return Manifest{}, false
	}
	mediaType, err := manifest.TypeOf(raw)
	if err != nil {
		mediaType = rec.MediaType // an earlier release kept what is refused now
	}
	return Manifest{Digest: d, MediaType: mediaType, Size: int64(len(raw)), Raw: raw}, true
}

// readManifest reads the file of a manifest, and no more of it than a manifest may have.
func (s *Store) readManifest(d digest.Digest) ([]byte, error) {
	file, info, err := s.folder.OpenBlob(d)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw := make([]byte, min(info.Size(), MaxManifest))
	_, err = io.ReadFull(file, raw)
	return raw, err
}

// keepManifest checks a manifest that an upstream has sent, and stores it. If the disk cannot
// take it, that costs only the caching.
func (s *Store) keepManifest(ctx context.Context, repo Repository, m *Manifest) error {
	parts, err := m.Check()
	if err == nil {
		err = s.checkRecords(len(parts.Children))
	}
	if errors.Is(err, manifest.ErrTooMany) || errors.Is(err, errIndexFull) {
		s.log.Warn("a manifest is passed through and not kept", "repository", repo, "digest", m.Digest, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	s.came(m.Digest)
	s.storeManifest(ctx, repo, m, parts, records.Proven)
	s.prove(m.Digest, false, repo)
	s.seekProofs(m.Digest)
	return nil
}

// storeManifest stores a manifest, with its membership and that of everything it names.
func (s *Store) storeManifest(ctx context.Context, repo Repository, m *Manifest, parts manifest.Parts, proof records.Proof) {
	s.memory.addManifest(*m)
	members := map[digest.Digest]records.Member{m.Digest: {Size: m.Size, Manifest: true, Role: records.ManifestOnly, Proven: proof}}
	s.addMembers(members, parts.Children, recency.MaxDepth)
	rec := m.Record(parts, s.now())
	if known, err := s.index.Blob(m.Digest); err == nil && known.IsManifest() {
		rec.Fetched = known.Fetched // by another repository, perhaps
	}
	record := func() error {
		return s.join(repo, members, func(all map[digest.Digest]records.Member) error {
			return s.index.PutManifest(repo, m.Digest, rec, all)
		})
	}
	if err := s.blobs.Put(ctx, m.Digest, m.Raw, record); err != nil {
		_ = s.join(repo, members, func(map[digest.Digest]records.Member) error { return nil }) // in memory
		if blobs.IsFilling(err) {
			s.putLater(*m, rec.Subject, record)
		} else {
			s.blobs.Trouble(slog.LevelError, "a manifest was served but not kept", err, "repository", repo, "digest", m.Digest)
		}
	} else {
		s.opts.Filled(m.Digest)
	}
	s.recordReferrers(RepoDigest{Repository: repo, Digest: m.Digest})
	s.useParts(m.Digest) // the layers that it shares with others
	s.pins.ManifestKept(m.Digest, rec.Subject)
	s.seekProofsOf(repo, members)
}

// checkRecords returns errIndexFull if a manifest names too much at the moment.
func (s *Store) checkRecords(children int) error {
	n := int64(children) * recordBytes
	if n > manyRecords && s.index.Bytes()+n > s.maxRecords {
		s.untidy.Store(true)
		return errIndexFull
	}
	return nil
}

// addMembers adds to members what a manifest names; and what the manifests below it name, if
// they are on disk and no repository is known to have them, as after the index was lost.
// Otherwise the upstream is asked about each of these manifests, and it may be gone again.
func (s *Store) addMembers(members map[digest.Digest]records.Member, children []manifest.Child, depth int) {
	for _, child := range children {
		rec := records.Member{Size: child.Size, Manifest: child.Manifest, Proven: records.ByWord}
		if child.Manifest {
			rec.Role = records.ManifestOnly
		}
		if known, ok := members[child.Digest]; ok {
			rec = known.With(rec)
		}
		members[child.Digest] = rec
		if !child.Manifest || depth == 0 || s.hasRepository(child.Digest) {
			continue
		}
		if _, below, err := manifest.ReadFile(s.folder.Blob(child.Digest), child.Digest); err == nil {
			s.addMembers(members, below.Children, depth-1)
		}
	}
}

// hasRepository reports whether any repository is known to have a blob.
func (s *Store) hasRepository(d digest.Digest) bool {
	repos, err := s.index.Repositories(d, 1)
	return len(repos) > 0 || err != nil
}

// putLater stores a manifest after the running fill of the same digest ends. Its caller's
// work keeps the store open meanwhile.
func (s *Store) putLater(m Manifest, subject digest.Digest, record func() error) {
	d := m.Digest
	err := s.tasks.Go(func() {
		ctx := s.tasks.Context()
		if err := s.blobs.PutAfterFill(ctx, d, m.Raw, record); err == nil {
			s.useParts(d)
			s.pins.ManifestKept(d, subject)
			s.opts.Filled(d)
		} else if ctx.Err() == nil {
			s.blobs.Trouble(slog.LevelError, "a manifest was served but not kept", err, "digest", d)
		}
	})
	if err != nil {
		s.log.Debug("a manifest was served but not kept", "digest", d, "error", err)
	}
}

// useImage notes that a manifest was used, and with it everything that it needs: a runtime
// does not ask again for layers that it has. Once per tick is enough; a hit costs a look at a
// map.
func (s *Store) useImage(d digest.Digest) {
	if s.items.UsedLately(d, s.now()) {
		return
	}
	s.useParts(d)
}

// useParts uses an image and its parts in the order that recency.List wants: parents before
// children. What has no children comes last, large before small, since all of it has the
// same age.
func (s *Store) useParts(d digest.Digest) {
	manifests := make(map[digest.Digest]bool)
	parts := recency.Descend([]digest.Digest{d}, func(d digest.Digest) []digest.Digest {
		children, ok := s.index.Children(d)
		manifests[d] = ok
		return children
	})
	bytes := make(map[digest.Digest]int64)
	for _, d := range parts {
		it, _ := s.items.Get(d)
		bytes[d] = it.Bytes
	}
	slices.SortStableFunc(parts, func(a, b digest.Digest) int {
		switch {
		case manifests[a] && manifests[b]:
			return 0
		case manifests[a]:
			return -1
		case manifests[b]:
			return 1
		}
		return cmp.Compare(bytes[b], bytes[a])
	})
	now := s.now()
	for _, d := range parts {
		s.items.Use(d, now)
	}
}
