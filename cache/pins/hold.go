package pins

import (
	"iter"

	"github.com/opencontainers/go-digest"
)

// Hold protects blobs from eviction for a time, as a pin does without end: while an import
// brings them, or an export reads them. Its methods may be called from several goroutines at
// once.
type Hold struct {
	pins  *Pins
	holds map[digest.Digest]bool // Pins.mu guards it
}

// held is a blob that some Hold protects.
type held struct {
	holds int
	bytes int64 // on disk, now or once it is there
}

// Hold returns a Hold of nothing.
func (p *Pins) Hold() *Hold { return &Hold{pins: p, holds: make(map[digest.Digest]bool)} }

// Add protects blobs that take so many bytes on disk, now or once they are there. A blob may
// be evicted while the call runs, unless the caller lets nothing be evicted.
func (h *Hold) Add(sizes map[digest.Digest]int64) {
	p := h.pins
	p.mu.Lock()
	defer p.mu.Unlock()
	for d, bytes := range sizes {
		blob := p.held[d]
		if !h.holds[d] {
			h.holds[d] = true
			blob.holds++
		}
		blob.bytes = max(blob.bytes, bytes)
		p.held[d] = blob
	}
}

// AddIfFits is Add for blobs that are still to come. It returns ENOSPC with the arithmetic if
// the cache cannot have them beside what is pinned and held.
func (h *Hold) AddIfFits(sizes map[digest.Digest]int64) error {
	p := h.pins
	p.changing.Lock() // no pin is added meanwhile
	defer p.changing.Unlock()
	if err := h.CheckFits(sizes); err != nil {
		return err
	}
	h.Add(sizes)
	return nil
}

// CheckFits returns the error of AddIfFits, and changes nothing.
func (h *Hold) CheckFits(sizes map[digest.Digest]int64) error {
	before, added := h.pins.BytesWith(sizes)
	return h.pins.Space.CheckPins(before, before+added)
}

// Close ends the protection of all blobs.
func (h *Hold) Close() {
	h.pins.reorder(h.alone())
	p := h.pins
	p.mu.Lock()
	defer p.mu.Unlock()
	for d := range h.holds {
		blob := p.held[d]
		if blob.holds--; blob.holds == 0 {
			delete(p.held, d)
		} else {
			p.held[d] = blob
		}
	}
	clear(h.holds)
}

// alone lists the blobs that nothing else protects.
func (h *Hold) alone() []digest.Digest {
	p := h.pins
	p.mu.Lock()
	defer p.mu.Unlock()
	var alone []digest.Digest
	for d := range h.holds {
		if _, pinned := p.digests[d]; !pinned && p.held[d].holds == 1 {
			alone = append(alone, d)
		}
	}
	return alone
}

// Protects reports whether a blob must not be evicted: a pin holds it, or a Hold.
func (p *Pins) Protects(d digest.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.protectsLocked(d)
}

func (p *Pins) protectsLocked(d digest.Digest) bool {
	_, pinned := p.digests[d]
	return pinned || p.held[d].holds > 0
}

// Evictable is how many items are not protected, and how many bytes they take.
func (p *Pins) Evictable() (bytes int64, items int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Items.Without(p.protectedLocked())
}

// protectedLocked lists what is protected, each digest once.
func (p *Pins) protectedLocked() iter.Seq[digest.Digest] {
	return func(yield func(digest.Digest) bool) {
		for d := range p.digests {
			if !yield(d) {
				return
			}
		}
		for d := range p.held {
			if _, pinned := p.digests[d]; !pinned && !yield(d) {
				return
			}
		}
	}
}

// withHeld is how many bytes a set of blobs takes together with what is held.
func (p *Pins) withHeld(digests map[digest.Digest]int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return sum(digests) + p.heldBesideLocked(digests)
}

// heldBesideLocked is how many bytes are held that are not in a set of blobs.
func (p *Pins) heldBesideLocked(digests map[digest.Digest]int64) int64 {
	var n int64
	for d, blob := range p.held {
		n += max(blob.bytes-digests[d], 0)
	}
	return n
}

// BytesWith returns how many bytes are pinned or held, and how many more it would be with
// these blobs.
func (p *Pins) BytesWith(own map[digest.Digest]int64) (before, added int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d, size := range own {
		added += max(size-max(p.digests[d], p.held[d].bytes), 0)
	}
	return p.bytes + p.heldBesideLocked(p.digests), added
}
