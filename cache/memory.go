package cache

import (
	"errors"
	"io/fs"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/records"
)

// memory is what the way of a hit looks at before the index. Each part may be used from
// several goroutines at once.
type memory struct {
	manifests *lru.Cache[digest.Digest, Manifest]
	blobs     *lru.Cache[digest.Digest, []byte] // small ones, such as the configurations of images
	members   *lru.Cache[records.RepoDigest, membership]
	tags      *lru.Cache[tagID, tagMemo]
	referrers *sized[records.RepoDigest, referrersMemo]
	refusals  refusals
}

// tagID names a tag.
type tagID struct {
	repo Repository
	tag  string
}

// image is the tag as a pin names it.
func (id tagID) image() records.Pin { return records.Pin{Repository: id.repo, Reference: id.tag} }

// gone returns when the upstream first said that the tag does not exist, or zero if it exists.
func (m *tagMemo) gone() time.Time { return m.pending.GoneSince(m.Checked) }

// tagMemo is a tag's record, and what is known of checks that failed since.
type tagMemo struct {
	records.Tag
	pending    records.Pending
	quietUntil time.Time // the latest is not repeated until then
	superseded bool      // by it, the tag names an image that the cache refuses
	stale      string    // why the tag was served stale, without digits; empty if it was not
}

// membership is the record of a membership, and what follows from it.
type membership struct {
	records.Member
	served bool // to clients of the repository, from the cache
}

// referrersMemo is a list, and what is known of checks that failed since. Without a list, its
// Checked is zero.
type referrersMemo struct {
	records.Referrers
	quietUntil time.Time // the latest check is not repeated until then
	stale      string    // why the list was served stale, without digits; empty if it was not
}

// The bounds keep the whole below some 32 MB: 128 manifests of at most 64 KiB (a usual one
// has 1 to 10), 256 blobs of at most 16, records of about 200 bytes, and lists of referrers.
const (
	memoryManifests   = 128
	memoryManifestMax = 64 << 10
	memoryBlobs       = 256
	memoryBlobMax     = 16 << 10
	memoryRecords     = 16 << 10
	memoryReferrers   = 2 << 20 // bytes
)

func newMemory() *memory {
	return &memory{
		manifests: newLRU[digest.Digest, Manifest](memoryManifests),
		blobs:     newLRU[digest.Digest, []byte](memoryBlobs),
		members:   newLRU[records.RepoDigest, membership](memoryRecords),
		tags:      newLRU[tagID, tagMemo](memoryRecords),
		referrers: newSized[records.RepoDigest, referrersMemo](memoryReferrers),
		refusals:  newRefusals(),
	}
}

func newLRU[K comparable, V any](size int) *lru.Cache[K, V] {
	c, err := lru.New[K, V](size)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return c
}

// forget drops the content of a blob that was removed from the disk.
func (m *memory) forget(d digest.Digest) {
	m.manifests.Remove(d)
	m.blobs.Remove(d)
}

func (m *memory) addManifest(manifest Manifest) {
	if len(manifest.Raw) <= memoryManifestMax {
		m.manifests.Add(manifest.Digest, manifest)
	}
}

// refuse remembers an upstream's refusal until a given time, so that a pod that starts over
// and over does not cause a request upstream each time. Any other error, or none, is not
// remembered, and neither is a personal refusal.
func (m *memory) refuse(key string, err error, until time.Time) {
	var who interface{ Personal() bool }
	if errors.As(err, &who) && who.Personal() {
		return
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		m.refusals.add(key, err, until)
	}
}

// refused returns a refusal that is still remembered.
func (m *memory) refused(key string, now time.Time) error {
	return m.refusals.get(key, now)
}
