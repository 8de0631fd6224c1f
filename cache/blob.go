package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/records"
)

// BlobHere opens a blob that is complete and that the repository is known to have. It asks
// no upstream and waits for nothing: it is the way of a hit. Nil means that [Store.Holds]
// and [Store.Open] have the answer.
func (s *Store) BlobHere(repo Repository, d digest.Digest) *Blob {
	if CheckDigest(d) != nil {
		return nil
	}
	rec, err := s.member(repo, d)
	if err != nil || !rec.IsBlob() {
		return nil
	}
	if content, ok := s.memory.blobs.Get(d); ok {
		s.items.Use(d, s.now())
		return blobs.InMemory(content)
	}
	blob := s.blobs.OpenFile(d, rec.Size)
	if blob == nil {
		return nil
	}
	s.items.Use(d, s.now())
	if file, ok := blob.ReadSeekCloser.(*os.File); ok && blob.Size <= memoryBlobMax {
		return s.takeIntoMemory(d, file, blob.Size)
	}
	return blob
}

// takeIntoMemory reads a small blob into memory. It returns nil for a damaged blob, which
// counts as missing from then on.
func (s *Store) takeIntoMemory(d digest.Digest, file *os.File, size int64) *Blob {
	defer file.Close()
	content := make([]byte, size)
	if _, err := file.ReadAt(content, 0); err != nil || d.Algorithm().FromBytes(content) != d {
		s.blobs.Distrust(d)
		return nil
	}
	s.memory.blobs.Add(d, content)
	if _, err := os.Lstat(file.Name()); err != nil {
		s.memory.forget(d) // it was evicted meanwhile
	}
	return blobs.InMemory(content)
}

// Open opens a blob: from disk, or by joining the fill that brings it, which it starts if
// there is none. It blocks until the size is known. The caller has asked [Store.Holds]
// whether the client may have the blob. source is that of the client's repository: a fill has
// the sources of all its clients, and uses one at a time. A client whose own source is healthy
// depends on no other: see [fill.Fill.Open].
//
// Reads return an error if the content turns out not to match its digest, and never its last
// byte.
func (s *Store) Open(ctx context.Context, d digest.Digest, source Source) (*Blob, error) {
	if err := CheckDigest(d); err != nil {
		return nil, fmt.Errorf("open blob %q: %w", d, err)
	}
	if d == emptySHA256 || d == emptySHA512 {
		return blobs.InMemory(nil), nil
	}
	return s.blobs.Open(ctx, d, source)
}

// The blob without bytes needs neither a disk nor a source.
const (
	emptySHA256 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	emptySHA512 = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce" +
		"47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
)

// Stat returns the size of a complete blob, and fs.ErrNotExist for any other.
func (s *Store) Stat(d digest.Digest) (int64, error) {
	if err := CheckDigest(d); err != nil {
		return 0, err
	}
	return s.blobs.Stat(d)
}

// Distrust says that the disk failed while a blob was read. The blob counts as missing, and
// is checked in the background.
func (s *Store) Distrust(d digest.Digest) { s.blobs.Distrust(d) }

// Holds returns the size of a blob that the repository is known to have, or -1 if the size
// is not known. The upstream confirms first what is not known to belong there, though it may
// be in the cache for another repository. The error is fs.ErrNotExist for a manifest of the
// repository, whatever the upstream says: containerd asks for a manifest among the blobs
// too, and takes a yes for the content, of no type.
func (s *Store) Holds(ctx context.Context, repo Repository, d digest.Digest, confirm func(context.Context) (int64, error)) (int64, error) {
	if err := CheckDigest(d); err != nil {
		return 0, fmt.Errorf("blob %q: %w", d, err)
	}
	rec, err := s.member(repo, d)
	switch {
	case err == nil && rec.IsBlob():
		return rec.Size, nil
	case err == nil && rec.Role == records.ManifestOnly:
		return 0, fmt.Errorf("blob %s@%s: it is a manifest: %w", repo, d, fs.ErrNotExist)
	}
	key := "blob/" + repo.String() + "@" + d.String()
	if err := s.refused(key); err != nil {
		return 0, err
	}
	size, err := share(ctx, s, key, func(ctx context.Context) (int64, error) {
		size, err := confirm(ctx)
		s.refuse(key, err)
		if err == nil {
			s.addMember(repo, d, records.Member{Size: -1}) // only a manifest's word on the size is binding
		}
		return size, err
	})
	if err != nil {
		return 0, fmt.Errorf("blob %s@%s: %w", repo, d, err)
	}
	return size, nil
}

// addMember records a membership beside what is known of the digest in the repository.
func (s *Store) addMember(repo Repository, d digest.Digest, rec records.Member) {
	if known, err := s.member(repo, d); err == nil {
		rec = rec.With(known)
	}
	s.memory.members.Add(records.RepoDigest{Repository: repo, Digest: d}, rec)
	if err := s.index.PutMember(repo, d, rec); err != nil {
		s.blobs.Trouble(slog.LevelWarn, "a membership was not recorded", err, "repository", repo, "digest", d)
	}
}

// member returns what is known of a blob or manifest in a repository. It returns
// fs.ErrNotExist if the repository is not known to have it.
func (s *Store) member(repo Repository, d digest.Digest) (records.Member, error) {
	id := records.RepoDigest{Repository: repo, Digest: d}
	if rec, ok := s.memory.members.Get(id); ok {
		return rec, nil
	}
	rec, err := s.index.Member(repo, d)
	if err == nil {
		s.memory.members.Add(id, rec)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("membership could not be read", "repository", repo, "digest", d, "error", err)
	}
	return rec, err
}

// Remembering returns a source of a blob in a repository that repeats an upstream's refusal for
// Freshness.Negative, rather than ask again: a pod whose credentials may read manifests but not
// layers starts over and over as well. What is in the cache needs no fetch. size is what a
// manifest tells, in bytes, or 0.
func (s *Store) Remembering(repo Repository, d digest.Digest, size int64, fetch Fetch) Source {
	key := "fetch/" + repo.String() + "@" + d.String()
	return Source{
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
}

// CheckDigest returns an error for a digest that is not valid: see [disk.CheckDigest].
func CheckDigest(d digest.Digest) error { return disk.CheckDigest(d) }
