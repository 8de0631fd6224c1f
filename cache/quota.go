package cache

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// The quota of a user is in no statfs(2). That it is used up shows when something
// cannot be written (EDQUOT). What the cache takes then is as much as it may.

// quotaFor is how long a quota bounds the folder that was met: it may be raised.
const quotaFor = time.Hour

// placing reserves n bytes for a file of a blob, and has create make it. Where a
// quota does not let it, room is made below that, once.
func (s *Store) placing(ctx context.Context, d digest.Digest, n int64, create func() error) error {
	for again := false; ; again = true {
		if err := s.reserve(ctx, n); err != nil {
			return err
		}
		err := create()
		s.space.placed(n)
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
	if !errors.Is(err, unix.EDQUOT) {
		return false
	}
	bound, first := s.space.confine()
	if first {
		s.log.Warn("a quota does not let the cache become as large as max_size: it keeps below the quota", "bytes", bound, "error", err)
	}
	return bound > 0
}

// confine makes what the folder takes its bound, less the room that the index
// needs at the end of a quota as at that of a file system. It returns 0 where the
// blobs are not what fills the quota. first says that there was no such bound.
func (sp *space) confine() (bound int64, first bool) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.taken-sp.unplaced <= blobRoom {
		return 0, false
	}
	first = sp.quota == 0
	sp.quota = sp.taken - sp.unplaced + sp.overhead - blobRoom
	sp.quotaUntil = time.Now().Add(quotaFor)
	return sp.quota, first
}
