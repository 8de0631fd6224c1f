package records

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Index holds the records of a cache folder. Its methods may be called from
// several goroutines at once, until Close.
//
// The error of a missing record is fs.ErrNotExist. Methods that read many records
// skip those that cannot be decoded. Writes are not synced, so a power cut may
// lose the latest; a method that writes several records writes them in one batch,
// of which a crash may lose the end. While the disk fails or is nearly full,
// nothing is written, and the error tells why.
//
// A function that is given to one of the Each methods must not call the index.
type Index struct {
	db *database

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
func (ix *Index) InMemory() bool { return ix.db.inMemory }

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
	if ix.db.inMemory || changes == ix.saved {
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

// Forget removes all records of a blob: its own, its time of use, its
// memberships, and its verdict and touch in each repository. Of a manifest it also
// removes the memberships of what it names and stays returns false for: nothing else
// would ever remove them. Its tags stay, so that it can be pinned and fetched again.
func (ix *Index) Forget(d digest.Digest, stays func(digest.Digest) bool) error {
	repos, err := ix.Repositories(d, 0)
	if err != nil {
		return err
	}
	named, _ := ix.Children(d)
	gone := slices.DeleteFunc(slices.Clone(named), stays)
	keys := [][]byte{blobKey(d), usedKey(d)}
	for _, repo := range repos {
		keys = append(keys, memberKey(repo, d))
		keys = append(keys, ix.aboutImage(repo, d)...)
		for _, child := range gone {
			keys = append(keys, memberKey(repo, child))
		}
	}
	return ix.db.remove(keys...)
}

// Disown removes tags of a repository, and the memberships of blobs in it with
// their verdicts and touches. Records that do not exist are no error.
func (ix *Index) Disown(repo Repository, tags []string, blobs []digest.Digest) error {
	var keys [][]byte
	for _, tag := range tags {
		keys = append(keys, tagKey(repo, tag))
	}
	for _, d := range blobs {
		keys = append(keys, memberKey(repo, d))
		keys = append(keys, ix.aboutImage(repo, d)...)
	}
	return ix.db.remove(keys...)
}

// aboutImage returns the keys of the verdict and the touch of an image, as far as
// these exist.
func (ix *Index) aboutImage(r Repository, d digest.Digest) [][]byte {
	var keys [][]byte
	for _, key := range [][]byte{verdictKey(r, d), touchedKey(r, d)} {
		if ix.db.has(key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// Member returns how a repository contains a blob.
func (ix *Index) Member(repo Repository, d digest.Digest) (Member, error) {
	var rec Member
	err := ix.db.get(memberKey(repo, d), &rec)
	return rec, err
}

// PutMember records that a repository contains a blob.
func (ix *Index) PutMember(repo Repository, d digest.Digest, rec Member) error {
	return ix.db.put(entry{memberKey(repo, d), rec})
}

// EachMember calls visit for every membership of a digest for which of returns
// true, until visit returns an error.
func (ix *Index) EachMember(of func(digest.Digest) bool, visit func(RepoDigest, Member) error) error {
	return ix.db.each(memberPrefix, func(name, raw []byte) error {
		repo, d, ok := parseMember(string(name))
		if !ok || !of(d) {
			return nil
		}
		var rec Member
		if readable := json.Unmarshal(raw, &rec) == nil; readable {
			return visit(RepoDigest{repo, d}, rec)
		}
		return nil
	})
}

var errEnough = errors.New("enough records were read")

// Repositories returns the repositories that contain a blob, in the order of
// their names, and no more than limit unless limit is 0.
func (ix *Index) Repositories(d digest.Digest, limit int) ([]Repository, error) {
	var repos []Repository
	err := ix.db.each(membersPrefix(d), func(name, _ []byte) error {
		repos = append(repos, parseRepository(string(name)))
		if len(repos) == limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return repos, err
}

// Tag returns what a tag points to.
func (ix *Index) Tag(repo Repository, tag string) (Tag, error) {
	var rec Tag
	err := ix.db.get(tagKey(repo, tag), &rec)
	return rec, err
}

// PutTag records what a tag points to.
func (ix *Index) PutTag(repo Repository, tag string, rec Tag) error {
	return ix.db.put(entry{tagKey(repo, tag), rec})
}

// RemoveTag removes a tag. It is no error if there is none.
func (ix *Index) RemoveTag(repo Repository, tag string) error {
	return ix.db.remove(tagKey(repo, tag))
}

// Tags returns the tags of a repository, sorted.
func (ix *Index) Tags(repo Repository) ([]string, error) {
	var tags []string
	err := ix.db.each(tagsPrefix(repo), func(name, _ []byte) error {
		tags = append(tags, string(name))
		return nil
	})
	return tags, err
}

// EachTag calls visit for every tag, until visit returns an error.
func (ix *Index) EachTag(visit func(repo Repository, tag string, rec Tag) error) error {
	return ix.db.each(tagPrefix, func(name, raw []byte) error {
		var rec Tag
		if readable := json.Unmarshal(raw, &rec) == nil; readable {
			repo, tag := parseTag(string(name))
			return visit(repo, tag, rec)
		}
		return nil
	})
}

// Resolve returns the digest of the manifest that a pin names. It returns
// fs.ErrNotExist if its tag is not known, or if its digest is not known as a
// manifest of the repository.
func (ix *Index) Resolve(p Pin) (digest.Digest, error) {
	if !isDigest(p.Reference) {
		rec, err := ix.Tag(p.Repository, p.Reference)
		return rec.Digest, err
	}
	d := digest.Digest(p.Reference)
	rec, err := ix.Member(p.Repository, d)
	if err == nil && !rec.Manifest {
		err = fs.ErrNotExist
	}
	return d, err
}

// Pins returns all pins.
func (ix *Index) Pins() (map[Pin]PinRecord, error) {
	pins := make(map[Pin]PinRecord)
	err := ix.db.each(pinPrefix, func(name, raw []byte) error {
		repo, reference := parseImage(string(name))
		var rec PinRecord
		_ = json.Unmarshal(raw, &rec) // a pin holds even if its record cannot be decoded
		pins[Pin{repo, reference}] = rec
		return nil
	})
	return pins, err
}

// PutPin records a pin.
func (ix *Index) PutPin(p Pin, rec PinRecord) error { return ix.db.put(entry{pinKey(p), rec}) }

// RemovePin removes a pin. It returns fs.ErrNotExist if there is none.
func (ix *Index) RemovePin(p Pin) error {
	if err := ix.db.get(pinKey(p), new(PinRecord)); err != nil {
		return err
	}
	return ix.db.remove(pinKey(p))
}

// Verdicts returns all verdicts.
func (ix *Index) Verdicts() ([]Verdict, error) {
	var all []Verdict
	err := ix.db.each(verdictPrefix, func(name, raw []byte) error {
		var e Expiry
		repo, d, ok := parseDigest(string(name))
		if ok && json.Unmarshal(raw, &e) == nil {
			all = append(all, Verdict{repo, d, e})
		}
		return nil
	})
	return all, err
}

// ReplaceVerdicts replaces all verdicts by others. It writes only what changed,
// in one batch.
func (ix *Index) ReplaceVerdicts(verdicts []Verdict) error {
	old := make(map[string]string)
	err := ix.db.each(verdictPrefix, func(name, raw []byte) error {
		old[verdictPrefix+string(name)] = string(raw)
		return nil
	})
	if err != nil {
		return err
	}
	var changed []entry
	for _, v := range verdicts {
		key := verdictKey(v.Repository, v.Digest)
		raw, err := json.Marshal(v.Expiry)
		if err != nil {
			return err
		}
		if old[string(key)] != string(raw) {
			changed = append(changed, entry{key, json.RawMessage(raw)})
		}
		delete(old, string(key))
	}
	if len(changed) == 0 && len(old) == 0 {
		return nil
	}
	return ix.db.update(func(b *batch) error {
		for _, e := range changed {
			if err := b.put(e); err != nil {
				return err
			}
		}
		for key := range old {
			if err := b.remove([]byte(key)); err != nil {
				return err
			}
		}
		return nil
	})
}

// PutTouch records, to the second, when the upstream was last told that a
// manifest of the repository is in use. No snapshot contains it.
func (ix *Index) PutTouch(repo Repository, d digest.Digest, at time.Time) error {
	return ix.db.putUnsaved(entry{touchedKey(repo, d), at.Unix()})
}

// Touches returns what PutTouch recorded.
func (ix *Index) Touches() (map[RepoDigest]time.Time, error) {
	all := make(map[RepoDigest]time.Time)
	err := ix.db.each(touchedPrefix, func(name, raw []byte) error {
		repo, d, ok := parseDigest(string(name))
		if at, err := decodeSeconds(raw); ok && err == nil {
			all[RepoDigest{repo, d}] = time.Unix(at, 0)
		}
		return nil
	})
	return all, err
}

// PutUses records, to the second, when blobs were last used.
func (ix *Index) PutUses(uses map[digest.Digest]time.Time) error {
	if len(uses) == 0 {
		return nil
	}
	entries := make([]entry, 0, len(uses))
	for d, at := range uses {
		entries = append(entries, entry{usedKey(d), at.Unix()})
	}
	return ix.db.put(entries...)
}

// EachUse calls visit for every blob whose last use is known, with that time in
// seconds since 1970.
func (ix *Index) EachUse(visit func(d digest.Digest, at int64)) error {
	return ix.db.each(usedPrefix, func(name, raw []byte) error {
		if at, err := decodeSeconds(raw); err == nil {
			visit(digest.Digest(name), at)
		}
		return nil
	})
}

// ScrubPosition returns the progress of the scrub. It is the zero value if that
// is not known.
func (ix *Index) ScrubPosition() ScrubPosition {
	var pos ScrubPosition
	if ix.db.get([]byte(scrubKey), &pos) != nil || pos.After != "" && pos.After.Validate() != nil {
		return ScrubPosition{}
	}
	return pos
}

// PutScrubPosition records the progress of the scrub. No snapshot contains it.
func (ix *Index) PutScrubPosition(pos ScrubPosition) error {
	return ix.db.putUnsaved(entry{[]byte(scrubKey), pos})
}
