package records

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Pending is what the upstream says about a tag where the cache does not follow it: the record
// of the tag stays as it is.
type Pending struct {
	// Gone is when the upstream first said that the tag does not exist. It is zero if the tag
	// exists.
	Gone time.Time `json:"gone,omitzero"`
	// Moves are the digests that the tag has named since it last named the one that is served,
	// the oldest first. Only the latest is the tag's now.
	Moves []Move `json:"moves,omitempty"`
}

// Move is a digest that a tag has moved to.
type Move struct {
	Digest digest.Digest `json:"digest"`
	Seen   time.Time     `json:"seen"` // when the cache first saw the tag name it, or when it was pushed
}

// maxMoves bounds the record: a tag may move every minute for days.
const maxMoves = 64

// Moved returns the moves of a tag that names a digest now. If there are too many, every second
// one is left out, but for the first and the latest.
func (p Pending) Moved(d digest.Digest, now time.Time) []Move {
	moves := slices.Clone(p.Moves)
	if n := len(moves); n > 0 && moves[n-1].Digest == d {
		return moves
	}
	if len(moves) >= maxMoves {
		for i := range len(moves) / 2 {
			moves[i] = moves[2*i]
		}
		moves = moves[:len(moves)/2]
	}
	return append(moves, Move{d, now})
}

// GoneSince returns Gone, or zero if the tag was confirmed later. checked is the time in the tag's
// record: an earlier release that confirms a tag does not remove what is pending for it.
func (p Pending) GoneSince(checked time.Time) time.Time {
	if checked.After(p.Gone) {
		return time.Time{}
	}
	return p.Gone
}

// IsZero reports whether nothing is pending.
func (p Pending) IsZero() bool { return p.Gone.IsZero() && len(p.Moves) == 0 }

// Pending returns what is pending for a tag. It is zero if nothing is.
func (ix *Index) Pending(repo Repository, tag string) Pending {
	var rec Pending
	if ix.db.get(pendingKey(repo, tag), &rec) != nil {
		return Pending{}
	}
	return rec
}

// PutPending records what is pending for a tag, or that nothing is.
func (ix *Index) PutPending(repo Repository, tag string, rec Pending) error {
	return ix.db.update(func(b *batch) error { return b.putPending(repo, tag, rec) })
}

// PutTagPending is PutTag and PutPending in one batch.
func (ix *Index) PutTagPending(repo Repository, tag string, rec Tag, pending Pending) error {
	return ix.db.update(func(b *batch) error {
		if err := b.put(entry{tagKey(repo, tag), rec}); err != nil {
			return err
		}
		return b.putPending(repo, tag, pending)
	})
}

func (b *batch) putPending(repo Repository, tag string, rec Pending) error {
	if rec.IsZero() {
		return b.remove(pendingKey(repo, tag))
	}
	return b.put(entry{pendingKey(repo, tag), rec})
}

// EachPending calls visit for every tag for which something is pending, until visit returns an
// error. The tag itself may have no record.
func (ix *Index) EachPending(visit func(repo Repository, tag string, rec Pending) error) error {
	return ix.db.each(pendingPrefix, func(name, raw []byte) error {
		var rec Pending
		if readable := json.Unmarshal(raw, &rec) == nil; readable {
			repo, tag := parseTag(string(name))
			return visit(repo, tag, rec)
		}
		return nil
	})
}
