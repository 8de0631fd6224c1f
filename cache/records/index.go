package records

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Index holds the records of a cache folder. Its methods may be called from
// several goroutines at once, until Close.
//
// The error of a missing record is fs.ErrNotExist. Methods that read many records
// skip those that cannot be decoded. Writes are not synced, so a power cut may
// lose the latest; a method that writes several records writes them in one batch,
// of which a crash may lose the end, unless it says otherwise. While the disk fails or is nearly full,
// nothing is written, and the error tells why.
//
// A function that is given to one of the Each methods must not call the index.
type Index struct {
	db       *database
	subjects subjects

	saving sync.Mutex // locked while a snapshot is written; guards saved
	saved  int64      // db.changes before the latest snapshot; -1 if this process wrote none

	formatMu sync.Mutex // locked while the format record is written; guards what follows
	format   format
}

// formatVersion is the version of the records. An index of another version is
// set aside, and a new one is made.
const formatVersion = 1

// format is the record that is written last when an index is made: an index
// without it is not complete.
type format struct {
	Version int `json:"version"`
	// Snapshot is the number of the latest snapshot that was begun. An index with
	// a lower number than its snapshot has lost records.
	Snapshot uint64 `json:"snapshot,omitempty"`
	// Rebuilding says that records of manifests are missing whose files exist.
	Rebuilding bool `json:"rebuilding,omitempty"`
	// Canonical says that every upstream has its canonical name in all records. Earlier
	// releases leave it out when they write this record.
	Canonical bool `json:"canonical,omitempty"`
}

func newIndex(db *database) *Index {
	return &Index{db: db, saved: -1, format: format{Version: formatVersion}}
}

// Close writes what is in memory to the disk and closes the index. It returns
// after some seconds even if the disk fails; the next Open recovers the index
// then.
func (ix *Index) Close() error { return ix.db.close() }

// InMemory reports whether the index is in memory only, for a disk that has no
// space for one. It is forgotten with Close.
func (ix *Index) InMemory() bool { return ix.db.isInMemory() }

// Rebuilding reports whether records of manifests are missing whose files exist,
// because the index was lost.
func (ix *Index) Rebuilding() bool {
	ix.formatMu.Lock()
	defer ix.formatMu.Unlock()
	return ix.format.Rebuilding
}

// SetRebuilding records whether records of manifests are missing.
func (ix *Index) SetRebuilding(is bool) error {
	ix.formatMu.Lock()
	defer ix.formatMu.Unlock()
	was := ix.format.Rebuilding
	ix.format.Rebuilding = is
	err := ix.putFormat()
	if err != nil {
		ix.format.Rebuilding = was
	}
	return err
}

// putFormat records ix.format. The caller has locked ix.formatMu, or nobody else
// has the index yet.
func (ix *Index) putFormat() error { return ix.db.putUnsaved(entry{[]byte(formatKey), ix.format}) }

// Save writes a snapshot, if anything that it contains changed since the latest
// one. It calls reserve before it writes some of its bytes; reserve may use the
// index, but not save or close it. If Save fails, the older snapshot stays. A
// call waits for another one that runs. An index in memory has no snapshot.
func (ix *Index) Save(ctx context.Context, reserve Reserve) error {
	ix.saving.Lock()
	defer ix.saving.Unlock()
	changes := ix.db.changes.Load()
	if ix.db.isInMemory() || changes == ix.saved {
		return nil
	}
	number, err := ix.nextSnapshot()
	if err == nil {
		err = replaceSnapshot(ctx, ix.db, number, reserve)
	}
	if err == nil {
		ix.saved = changes
	}
	return err
}

// nextSnapshot records the number of a snapshot before that is written: an index
// that does not have it has lost records that the snapshot contains.
func (ix *Index) nextSnapshot() (uint64, error) {
	ix.formatMu.Lock()
	defer ix.formatMu.Unlock()
	ix.format.Snapshot++
	return ix.format.Snapshot, ix.putFormat()
}

// Blob returns the record of a blob or a manifest.
func (ix *Index) Blob(d digest.Digest) (Blob, error) {
	var rec Blob
	err := ix.db.get(blobKey(d), &rec)
	return rec, err
}

// Children returns the digests that a manifest names, and false if the index
// has no complete record of such a manifest.
func (ix *Index) Children(d digest.Digest) ([]digest.Digest, bool) {
	rec, err := ix.Blob(d)
	if err != nil || !rec.IsManifest() {
		return nil, false
	}
	return rec.Children, true
}

// PutBlob records a blob or a manifest.
func (ix *Index) PutBlob(d digest.Digest, rec Blob) error {
	defer ix.subjects.add(d, rec.Subject)
	return ix.db.put(entry{blobKey(d), rec})
}

// PutManifest records a manifest, and that the repository contains the members:
// the manifest and what it names. The record of the manifest is written last, so
// a crash leaves no known manifest without its members.
func (ix *Index) PutManifest(repo Repository, d digest.Digest, rec Blob, members map[digest.Digest]Member) error {
	entries := make([]entry, 0, len(members)+1)
	for member, rec := range members {
		entries = append(entries, entry{memberKey(repo, member), rec})
	}
	defer ix.subjects.add(d, rec.Subject)
	return ix.db.put(append(entries, entry{blobKey(d), rec})...)
}

// RemoveBlob removes the record of a blob, and no other record about it.
func (ix *Index) RemoveBlob(d digest.Digest) error { return ix.db.remove(blobKey(d)) }

// EachManifest calls visit for every manifest, until visit returns an error. Some
// records may not be complete: see [Blob.IsManifest].
func (ix *Index) EachManifest(visit func(digest.Digest, Blob) error) error {
	return ix.db.each(blobPrefix, func(name, raw []byte) error {
		var rec Blob
		if ok := decodeManifest(raw, &rec) == nil; ok && rec.MediaType != "" {
			return visit(digest.Digest(name), rec)
		}
		return nil
	})
}

// Forget removes the records of a blob: its own, its time of use, its memberships, and its
// verdict, touch and referrers in each repository. What else is not needed without it, such as
// its tags and the memberships of what it names, [Index.Tidy] removes.
func (ix *Index) Forget(d digest.Digest) error {
	repos, err := ix.Repositories(d, 0)
	if err != nil {
		return err
	}
	rec, err := ix.Blob(d)
	if err != nil {
		rec = Blob{} // it may refer to nothing that is known
	}
	keys := [][]byte{blobKey(d), usedKey(d)}
	for _, repo := range repos {
		keys = append(keys, memberKey(repo, d))
		keys = append(keys, ix.aboutImage(repo, d)...)
	}
	if err := ix.db.remove(keys...); err != nil {
		return err
	}
	ix.subjects.remove(d, rec.Subject)
	return nil
}

// Disown removes tags of a repository with what is pending for them, and the memberships of blobs in it with
// their verdicts, touches and referrers. Records that do not exist are no error.
func (ix *Index) Disown(repo Repository, tags []string, blobs []digest.Digest) error {
	var keys [][]byte
	for _, tag := range tags {
		keys = append(keys, tagKey(repo, tag), pendingKey(repo, tag))
	}
	for _, d := range blobs {
		keys = append(keys, memberKey(repo, d))
		keys = append(keys, ix.aboutImage(repo, d)...)
	}
	return ix.db.remove(keys...)
}

// aboutImage returns the keys of the verdict, the touch and the referrers of an
// image, unless these are known not to exist.
func (ix *Index) aboutImage(r Repository, d digest.Digest) [][]byte {
	var keys [][]byte
	for _, key := range [][]byte{verdictKey(r, d), touchedKey(r, d), referrersKey(r, d)} {
		if is, err := ix.db.has(key); is || err != nil {
			keys = append(keys, key)
		}
	}
	return keys
}
