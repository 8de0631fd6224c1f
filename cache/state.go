package cache

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/blobs"
)

// Stats is the state of a store at one time. Sizes are in bytes.
type Stats struct {
	Bytes    int64 `json:"bytes"`    // what the folder takes
	Unlinked int64 `json:"unlinked"` // of these, of removed files that are still read
	Index    int64 `json:"index"`    // of Bytes, the index and the space that is kept for it
	MaxSize  int64 `json:"maxSize"`  // what it may take; 0 for any number
	Free     int64 `json:"free"`     // of the file system
	Blobs    int   `json:"blobs"`    // complete ones, manifests among them
	Partials int   `json:"partials"` // partial downloads, whether a fill of them runs or not
	Images   int   `json:"images"`
	Pinned   int   `json:"pinned"` // of these
	Gone     int   `json:"gone"`   // of all images, that their upstream does not have any more
	Fills    int   `json:"fills"`  // that run
}

// Stats sums the store up. It reads as much as [Store.Images] does.
func (s *Store) Stats() (Stats, error) {
	images, err := s.Images()
	if err != nil {
		return Stats{}, err
	}
	partials, err := blobs.Partials(s.folder)
	if err != nil {
		return Stats{}, err
	}
	free, err := s.folder.Free()
	if err != nil && !errors.Is(err, unix.EROFS) {
		return Stats{}, err
	}
	st := Stats{
		Bytes:    s.space.Size(),
		Unlinked: s.blobs.Unlinked(),
		MaxSize:  s.space.MaxSize(),
		Free:     free,
		Blobs:    s.items.Len(),
		Partials: len(partials),
		Images:   len(images),
		Fills:    s.blobs.FillCount(),
	}
	st.Index = max(st.Bytes-st.Unlinked-s.items.Bytes(), 0)
	for _, p := range partials {
		if it, ok := s.items.Get(p.Digest()); ok && it.Partial {
			st.Blobs--
		}
	}
	for _, img := range images {
		if img.Pinned {
			st.Pinned++
		}
		if !img.Gone.IsZero() {
			st.Gone++
		}
	}
	return st, nil
}

// Activity is what a store does at one time, and has done since it was opened. Sizes are in
// bytes.
type Activity struct {
	Bytes    int64 `json:"bytes"`    // what the folder takes
	Unlinked int64 `json:"unlinked"` // of these, of removed files that are still read
	MaxSize  int64 `json:"maxSize"`  // what it may take; 0 for any number
	Free     int64 `json:"free"`     // of the file system
	Fills    int   `json:"fills"`    // that run
	Fetched  int64 `json:"fetched"`  // of blobs, from upstreams into the cache
	Evicted  int64 `json:"evicted"`  // of disk that was freed
	Scrubbed int64 `json:"scrubbed"` // of blobs at rest that were read and checked
	Damaged  int64 `json:"damaged"`  // blobs at rest that were damaged
	// Evictions counts blobs and partials by the reason why they were removed.
	Evictions map[string]int64 `json:"evictions"`
	// Degraded is why nothing is kept at the moment, or empty: see [Store.Degraded].
	Degraded string `json:"degraded,omitempty"`
}

// Activity returns at once, and may be called every second.
func (s *Store) Activity() Activity {
	free, _ := s.folder.Free() // the error is in Degraded
	a := Activity{
		Bytes:     s.space.Size(),
		Unlinked:  s.blobs.Unlinked(),
		MaxSize:   s.space.MaxSize(),
		Free:      free,
		Fills:     s.blobs.FillCount(),
		Fetched:   s.counts.FetchedBytes.Load(),
		Evicted:   s.counts.FreedBytes.Load(),
		Scrubbed:  s.counts.ScrubbedBytes.Load(),
		Damaged:   s.counts.Damaged.Load(),
		Evictions: s.counts.Evictions.Counts(),
	}
	if err := s.Degraded(); err != nil {
		a.Degraded = err.Error()
	}
	return a
}

// Degraded returns why nothing is kept at the moment, or nil: the disk is full of other
// data, read-only, or fails. What is in the cache is served all the same, and everything else
// is passed through.
func (s *Store) Degraded() error { return s.health.Failure() }

// Fills lists the fills that run, or wait for a slot, the oldest first. It returns at once,
// and may be called every second.
func (s *Store) Fills() []FillInfo { return s.blobs.Fills() }

// Evictions returns the latest evictions since the store was opened, the latest first. It
// returns at once.
func (s *Store) Evictions() []Eviction { return s.blobs.Evictions() }

// Scrub reads all blobs, at full speed, and removes those that do not match their digest: see
// [blobs.Store.Scrub].
func (s *Store) Scrub(ctx context.Context, progress func(done, total int64)) (ScrubResult, error) {
	return s.blobs.Scrub(ctx, progress)
}
