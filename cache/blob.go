package cache

import (
	"context"
	"fmt"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
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
	if err != nil || !rec.IsBlob() || !rec.served {
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
	if file, ok := blob.ReadSeeker.(*os.File); ok && blob.Size <= memoryBlobMax {
		defer blob.Close()
		return s.takeIntoMemory(d, file, blob.Size)
	}
	return blob
}

// OpenHere opens a blob or a manifest of the cache, whatever its repository. It counts as no use. The error is
// fs.ErrNotExist if it is not complete, or is known to be damaged.
func (s *Store) OpenHere(d digest.Digest) (*Blob, error) {
	if err := CheckDigest(d); err != nil {
		return nil, err
	}
	if isEmpty(d) {
		return blobs.InMemory(nil), nil
	}
	return s.blobs.OpenHere(d)
}

// takeIntoMemory reads a small blob into memory. It returns nil for a damaged blob, which
// counts as missing from then on.
func (s *Store) takeIntoMemory(d digest.Digest, file *os.File, size int64) *Blob {
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
// there is none. It blocks until the size is known. source is that of the client's repository,
// by [Store.Source]: a fill has the sources of all its clients, and uses one at a time. A client
// whose own source is healthy depends on no other, and one whose repository is not known to
// have the blob gets nothing that its own source does not confirm: see [fill.Fill.Open].
//
// Reads return an error if the content turns out not to match its digest, and never its last
// byte, except of a range that is passed through.
func (s *Store) Open(ctx context.Context, d digest.Digest, source Source) (*Blob, error) {
	if err := CheckDigest(d); err != nil {
		return nil, fmt.Errorf("open blob %q: %w", d, err)
	}
	if isEmpty(d) {
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

func isEmpty(d digest.Digest) bool { return d == emptySHA256 || d == emptySHA512 }

// Fetch brings a blob to disk, by joining the fill that brings it, which it starts if there is
// none. It returns when the blob is on disk and the source's repository is known to have it, and
// how many bytes had to be fetched, 0 if it was there. The error says why the blob could not be kept, such as ENOSPC. When ctx ends, the fill
// stops unless others want the blob; what has arrived is resumed by the next fill.
//
// [Unattended] marks ctx if nobody waits for the blob.
func (s *Store) Fetch(ctx context.Context, d digest.Digest, source Source) (fetched int64, err error) {
	if err := CheckDigest(d); err != nil {
		return 0, fmt.Errorf("fetch blob %q: %w", d, err)
	}
	if isEmpty(d) {
		return 0, nil
	}
	return s.blobs.Fetch(ctx, d, source)
}

// Unattended returns a context for work that nobody waits for.
func Unattended(ctx context.Context) context.Context { return fill.Unattended(ctx) }

// IsAttended reports whether somebody waits for the work of a context: see [fill.IsAttended].
// A [Fetch] asks it about its own context.
func IsAttended(ctx context.Context) bool { return fill.IsAttended(ctx) }

// Attention returns a channel that is closed as soon as [IsAttended] is true. It is nil if that
// cannot happen.
func Attention(ctx context.Context) <-chan struct{} { return fill.Attention(ctx) }

// IsPostponed reports whether err is that a source must not be asked now, as its upstream is
// offline or its hours are over. Then the cache's answer is the answer.
func IsPostponed(err error) bool { return fill.IsPostponed(err) }

// Size returns the size of a blob that a client of the repository gets from the cache, and
// fs.ErrNotExist for any other.
func (s *Store) Size(repo Repository, d digest.Digest) (int64, error) {
	if err := CheckDigest(d); err != nil {
		return 0, err
	}
	if known, err := s.member(repo, d); err != nil || !known.served {
		return 0, fs.ErrNotExist
	}
	return s.blobs.Stat(d)
}

// Stat returns the size of a complete blob, and fs.ErrNotExist for any other.
func (s *Store) Stat(d digest.Digest) (int64, error) {
	if err := CheckDigest(d); err != nil {
		return 0, err
	}
	return s.blobs.Stat(d)
}

// ReadFailed notes the error of copying a blob's file to a client, and reports whether the disk
// is the cause. If it is, the blob counts as missing, and is checked in the background.
func (s *Store) ReadFailed(d digest.Digest, err error) bool {
	failed := disk.IsReadError(err)
	if failed {
		s.blobs.Distrust(d)
	}
	return failed
}

// Holds returns the size of a blob that the repository has by a manifest's word or the
// registry's, or -1 if the size is not known. The registry is asked first if there is no such
// word. [Store.Open] may want a proof on top. The error is fs.ErrNotExist for a manifest of the
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
			s.addMember(repo, d, records.Member{Size: -1, Proven: records.ByWord}) // only a manifest's word on the size is binding
		}
		return size, err
	})
	if err != nil {
		return 0, fmt.Errorf("blob %s@%s: %w", repo, d, err)
	}
	return size, nil
}

// CheckDigest returns an error for a digest that is not valid: see [disk.CheckDigest].
func CheckDigest(d digest.Digest) error { return disk.CheckDigest(d) }
