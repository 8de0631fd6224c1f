package cache

import (
	"cmp"
	"slices"

	"github.com/larder-registry/larder/cache/fill"
)

// FillInfo is a blob on its way, at one time.
type FillInfo = fill.Info

// Fills lists the fills that run, or wait for their turn, the oldest first. It
// returns at once, and may be called every second.
func (s *Store) Fills() []FillInfo {
	s.mu.Lock()
	running := make([]*fill.Fill, 0, len(s.filling))
	for _, f := range s.filling {
		running = append(running, f)
	}
	s.mu.Unlock()
	all := make([]FillInfo, 0, len(running))
	for _, f := range running {
		all = append(all, f.Info())
	}
	slices.SortFunc(all, func(a, b FillInfo) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Digest, b.Digest))
	})
	return all
}
