package cache

import (
	"context"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/opencontainers/go-digest"
)

// The quota of a user is in no statfs(2). That it is used up shows when something
// cannot be written (EDQUOT). What the cache takes then is as much as it may.

// placing reserves n bytes for a file of a blob, and has create make it. Where a
// quota does not let it, room is made below that, once.
func (s *Store) placing(ctx context.Context, d digest.Digest, n int64, create func() error) error {
	for again := false; ; again = true {
		if err := s.reserve(ctx, n); err != nil {
			return err
		}
		err := create()
		s.space.Confirm(n)
		if err == nil {
			return nil
		}
		s.giveBack(d, n)
		if again || !s.confine(err) {
			return err
		}
	}
}

// confine has the cache keep below a quota, if that is why something could not be
// written and the cache has enough blobs to do without some.
func (s *Store) confine(err error) bool {
	if !disk.IsQuota(err) {
		return false
	}
	bound, first := s.space.AdoptQuota()
	if first {
		s.log.Warn("a quota does not let the cache become as large as max_size: it keeps below the quota", "bytes", bound, "error", err)
	}
	return bound > 0
}
