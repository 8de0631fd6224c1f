package records

import (
	"time"

	"github.com/opencontainers/go-digest"
)

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
