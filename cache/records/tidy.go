package records

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
)

// Tidying is what [Index.Tidy] needs to know. Its functions are called while locks of the index
// are held, and must not call the index.
type Tidying struct {
	// Here reports whether a blob is in the cache, may come at any moment, or is promised.
	Here func(digest.Digest) bool
	// Forgotten is called for each membership that was removed, and TagForgotten for each tag.
	Forgotten    func(RepoDigest)
	TagForgotten func(repo Repository, tag string)
}

// Tidied is what Tidy did and found.
type Tidied struct {
	Removed int   // records
	More    bool  // there are more to be removed, by another call
	Bytes   int64 // what the records take that stay
	// Large are some of the manifests in the cache whose records take most, the largest first.
	Large []LargeManifest
}

// LargeManifest is a manifest, and what its own record and the memberships of what it names
// take, in bytes.
type LargeManifest struct {
	Digest digest.Digest
	Bytes  int64
}

const (
	// maxTidied bounds the records that one call of Tidy removes: it has their keys in memory.
	maxTidied = 100_000
	// tidyBatch is how many records are removed while other writes wait.
	tidyBatch = 500
	// maxLarge is how many large manifests Tidy lists.
	maxLarge = 1000
)

// Tidy removes the records about blobs that are not here, except for those of the blobs that a
// manifest which is here names in one of its repositories: these may still be fetched. A tag
// goes with the manifest that it names, and what is pending for it with the tag; what it is to
// name goes with that manifest. Pins stay.
//
// It reads all records. Those that are written meanwhile stay. It does nothing while the
// records of manifests are incomplete: see [Index.Rebuilding].
func (ix *Index) Tidy(ctx context.Context, t Tidying) (Tidied, error) {
	if ix.Rebuilding() {
		return Tidied{}, nil
	}
	pass := tidyPass{Tidying: t, ctx: ctx, seed: maphash.MakeSeed()}
	before := ix.db.bytes.Load()
	// One transaction: in a second one there would be memberships of manifests that the first
	// one has not seen.
	err := ix.db.viewMany(func(txn *badger.Txn) error {
		if err := pass.readNamed(txn); err != nil {
			return err
		}
		return pass.findUnneeded(txn)
	})
	for batch := range slices.Chunk(pass.unneeded, tidyBatch) {
		if err = cmp.Or(err, ctx.Err()); err != nil {
			break
		}
		err = ix.removeUnneeded(&pass, batch)
	}
	if err != nil {
		return pass.result, fmt.Errorf("tidy the index: %w", err)
	}
	ix.db.bytes.Add(pass.result.Bytes - before) // what was written meanwhile counts too
	return pass.result, nil
}

// Bytes is about what the records take: what Tidy found, and what was written since.
func (ix *Index) Bytes() int64 { return ix.db.bytes.Load() }

// tidyPass is one pass over all records.
type tidyPass struct {
	Tidying
	ctx      context.Context
	seed     maphash.Seed
	named    []uint64 // hashes of the keys of memberships that are needed, sorted
	unneeded []unneeded
	result   Tidied
}

// unneeded is a record as it was found.
type unneeded struct {
	key     []byte
	version uint64
	bytes   int64
}

func (p *tidyPass) hash(key []byte) uint64 { return maphash.Bytes(p.seed, key) }

// readNamed finds the memberships of what the manifests that are here name.
func (p *tidyPass) readNamed(txn *badger.Txn) error {
	err := eachItem(txn, blobPrefix, func(item *badger.Item) error {
		d := digest.Digest(item.Key()[len(blobPrefix):])
		var rec Blob
		err := item.Value(func(raw []byte) error { return decodeManifest(raw, &rec) })
		if err != nil || len(rec.Children) == 0 || !p.Here(d) { // a record that cannot be read names nothing
			return p.ctx.Err()
		}
		return p.addNamed(txn, d, rec.Children, item.EstimatedSize())
	})
	slices.Sort(p.named)
	slices.SortFunc(p.result.Large, largestFirst)
	return err
}

func largestFirst(a, b LargeManifest) int { return cmp.Compare(b.Bytes, a.Bytes) }

// addNamed adds what a manifest names, in each repository that has it. own is what its record
// takes, in bytes.
func (p *tidyPass) addNamed(txn *badger.Txn, d digest.Digest, children []digest.Digest, own int64) error {
	large := LargeManifest{Digest: d, Bytes: own}
	err := eachItem(txn, membersPrefix(d), func(item *badger.Item) error {
		repo := item.Key()[len(membersPrefix(d)):]
		for _, child := range children {
			key := append([]byte(membersPrefix(child)), repo...)
			p.named = append(p.named, p.hash(key))
			large.Bytes += int64(len(key)) + memberValue
		}
		return p.ctx.Err()
	})
	if p.result.Large = append(p.result.Large, large); len(p.result.Large) == 2*maxLarge {
		slices.SortFunc(p.result.Large, largestFirst)
		p.result.Large = slices.Delete(p.result.Large, maxLarge, 2*maxLarge)
	}
	return err
}

// memberValue is about what the value of a membership takes, in bytes.
const memberValue = 40

// findUnneeded finds the records to be removed, and what the others take.
func (p *tidyPass) findUnneeded(txn *badger.Txn) error {
	return eachItem(txn, "", func(item *badger.Item) error {
		bytes := item.EstimatedSize()
		if len(p.unneeded) == maxTidied {
			p.result.More = true
		} else if p.isUnneeded(item) {
			p.unneeded = append(p.unneeded, unneeded{item.KeyCopy(nil), item.Version(), bytes})
		}
		p.result.Bytes += bytes
		return p.ctx.Err()
	})
}

func (p *tidyPass) isUnneeded(item *badger.Item) bool {
	key := item.Key()
	kind, name, _ := bytes.Cut(key, []byte("/"))
	switch string(kind) + "/" {
	case blobPrefix, usedPrefix:
		return p.isGone(digest.Digest(name))
	case memberPrefix:
		_, d, ok := parseMember(string(name))
		_, isNamed := slices.BinarySearch(p.named, p.hash(key))
		return ok && p.isGone(d) && !isNamed
	case verdictPrefix, touchedPrefix, referrersPrefix:
		_, d, ok := parseDigest(string(name))
		return ok && p.isGone(d)
	case tagPrefix, nextPrefix:
		d, err := taggedDigest(item)
		return err == nil && p.isGone(d)
	}
	return false
}

// isGone reports whether a record can be removed that is about a digest.
func (p *tidyPass) isGone(d digest.Digest) bool { return disk.CheckDigest(d) == nil && !p.Here(d) }

// taggedDigest returns the digest of a tag, or the next one.
func taggedDigest(item *badger.Item) (digest.Digest, error) {
	var rec struct{ Digest digest.Digest }
	err := item.Value(func(raw []byte) error { return json.Unmarshal(raw, &rec) })
	return rec.Digest, err
}

// removeUnneeded removes records, except for those that were written since they were found, or
// whose blob has come.
func (ix *Index) removeUnneeded(p *tidyPass, batch []unneeded) error {
	ix.db.writing.Lock()
	defer ix.db.writing.Unlock()
	var keys, pending [][]byte
	var freed int64
	err := ix.db.view(func(txn *badger.Txn) error {
		for _, r := range batch {
			item, err := txn.Get(r.key)
			switch {
			case errors.Is(err, badger.ErrKeyNotFound):
			case err != nil:
				return err
			case item.Version() == r.version && p.isUnneeded(item):
				keys = append(keys, r.key)
				if tag, ok := bytes.CutPrefix(r.key, []byte(tagPrefix)); ok {
					pending = append(pending, pendingKey(parseTag(string(tag))))
				}
				freed += r.bytes
			}
		}
		return nil
	})
	if err == nil && len(keys) > 0 {
		err = ix.db.removeLocked(slices.Concat(keys, pending)...)
	}
	if err != nil {
		return err
	}
	p.result.Removed += len(keys)
	p.result.Bytes -= freed
	for _, key := range keys {
		kind, name, _ := bytes.Cut(key, []byte("/"))
		switch string(kind) + "/" {
		case memberPrefix:
			repo, d, _ := parseMember(string(name))
			p.Forgotten(RepoDigest{repo, d})
		case tagPrefix:
			p.TagForgotten(parseTag(string(name)))
		}
	}
	return nil
}

const (
	// compactFrom is how many bytes the files of the index may take beside twice what the
	// records do.
	compactFrom = 32 << 20
	// discardRatio is the part of a file of values that must be garbage for it to be written
	// anew.
	discardRatio = 0.5
)

// Compact writes the files of the index anew if more than half of what they take is garbage.
// It blocks until that is done, and blocks no reader. It reports whether that was necessary.
// Once ctx is done, it ends after the file that it writes.
func (ix *Index) Compact(ctx context.Context) (bool, error) {
	db := ix.db
	db.use.RLock()
	defer db.use.RUnlock()
	if db.inMemory {
		return false, nil
	}
	used, err := disk.Usage(db.folder.Index())
	if err != nil || used <= 2*ix.Bytes()+compactFrom {
		return false, err
	}
	if err = errors.Join(ctx.Err(), db.mayWrite(2*ix.Bytes())); err == nil {
		err = db.badger.Flatten(1)
	}
	for err == nil {
		if err = ctx.Err(); err == nil {
			err = db.badger.RunValueLogGC(discardRatio)
		}
	}
	if errors.Is(err, badger.ErrNoRewrite) { // of no further file
		return true, nil
	}
	return false, fmt.Errorf("compact the index: %w", err)
}
