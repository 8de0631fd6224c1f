package cache

import (
	"cmp"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// FillInfo is a blob on its way, at one time. Sizes are in bytes.
type FillInfo struct {
	Digest digest.Digest `json:"digest"`
	// Size is 0 until the source has told it.
	Size int64 `json:"size"`
	// Have is what is on disk, in any order, with what an earlier process left.
	Have int64 `json:"have"`
	// Connections is how many fetch from the source at the moment.
	Connections int       `json:"connections"`
	Since       time.Time `json:"since"`
}

// Fills lists the fills that run, or wait for their turn, the oldest first. It
// returns at once, and may be called every second.
func (s *Store) Fills() []FillInfo {
	s.mu.Lock()
	running := make([]*fill, 0, len(s.filling))
	for _, f := range s.filling {
		running = append(running, f)
	}
	s.mu.Unlock()
	all := make([]FillInfo, 0, len(running))
	for _, f := range running {
		all = append(all, f.info())
	}
	slices.SortFunc(all, func(a, b FillInfo) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Digest, b.Digest))
	})
	return all
}

func (f *fill) info() FillInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	return FillInfo{
		Digest:      f.digest,
		Size:        max(f.size, 0),
		Have:        f.segs.have(),
		Connections: f.working,
		Since:       f.began,
	}
}

// have is how many bytes are on disk.
func (s *segments) have() (n int64) {
	for _, seg := range s.list {
		n += seg.have
	}
	return n
}
