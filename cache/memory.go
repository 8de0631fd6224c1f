package cache

import (
	"context"
	"errors"
	"io/fs"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
)

// memory is what the hit path looks at before the index. Each part is safe for
// concurrent use.
type memory struct {
	manifests *lru.Cache[digest.Digest, Manifest]
	blobs     *lru.Cache[digest.Digest, []byte] // small ones, such as the configurations of images
	members   *lru.Cache[records.RepoDigest, records.Member]
	tags      *lru.Cache[tagID, tagMemo]
	negatives *lru.Cache[string, negative]
}

// tagID names a tag.
type tagID struct {
	repo Repository
	tag  string
}

// tagMemo is a tag's record, and until when a failed check is not repeated.
type tagMemo struct {
	records.Tag
	quiet time.Time
}

// negative is an upstream's no, which holds for a while.
type negative struct {
	err   error
	until time.Time
}

// The bounds keep the whole below some 25 MB: 128 manifests of at most 64 KiB
// (a usual one has 1 to 10), 256 blobs of at most 16, and records of about 200
// bytes.
const (
	hotManifests   = 128
	hotManifestMax = 64 << 10
	hotBlobs       = 256
	hotBlobMax     = 16 << 10
	hotRecords     = 16 << 10
)

func newMemory() *memory {
	return &memory{
		manifests: newLRU[digest.Digest, Manifest](hotManifests),
		blobs:     newLRU[digest.Digest, []byte](hotBlobs),
		members:   newLRU[records.RepoDigest, records.Member](hotRecords),
		tags:      newLRU[tagID, tagMemo](hotRecords),
		negatives: newLRU[string, negative](hotRecords),
	}
}

func newLRU[K comparable, V any](size int) *lru.Cache[K, V] {
	c, err := lru.New[K, V](size)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return c
}

// forget drops what is removed from the disk.
func (m *memory) forget(d digest.Digest) {
	m.manifests.Remove(d)
	m.blobs.Remove(d)
}

func (m *memory) keep(manifest Manifest) {
	if len(manifest.Raw) <= hotManifestMax {
		m.manifests.Add(manifest.Digest, manifest)
	}
}

// deny remembers an upstream's no for Freshness.Negative, so that a pod that
// starts over and over does not carry its question upstream each time. Any
// other error, or none, is not remembered.
func (s *Store) deny(key string, err error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		s.memory.negatives.Add(key, negative{err, s.opts.Now().Add(s.opts.Tags.Negative)})
	}
}

// denied returns a no that still holds.
func (s *Store) denied(key string) error {
	if no, ok := s.memory.negatives.Get(key); ok && s.opts.Now().Before(no.until) {
		return no.err
	}
	return nil
}

// Remembering returns a fetch for a blob of a repository that repeats an
// upstream's no for Freshness.Negative, rather than ask again: a pod whose
// credentials may read manifests but not layers starts over and over as well.
// What is in the cache needs no fetch.
func (s *Store) Remembering(repo Repository, dgst digest.Digest, fetch Fetch) Fetch {
	key := "fetch/" + repo.String() + "@" + dgst.String()
	return func(ctx context.Context, r Range) (Content, error) {
		if err := s.denied(key); err != nil {
			return Content{}, err
		}
		content, err := fetch(ctx, r)
		s.deny(key, err)
		return content, err
	}
}
