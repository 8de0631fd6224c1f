package cache

import (
	"errors"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
)

// Distrust says that the disk failed while a blob was read, as it does where a
// sector has gone bad. The blob counts as missing from now on, and is checked in
// the background: one that is right counts as here again, and one that is damaged
// is removed.
func (s *Store) Distrust(dgst digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.damaged[dgst] {
		return
	}
	s.damaged[dgst] = true
	s.work.Go(func() { s.check(dgst) })
}

// check scrubs one blob.
func (s *Store) check(dgst digest.Digest) {
	run := &scrub{store: s, ctx: s.ctx, step: func(int) error { return s.ctx.Err() }}
	info, err := os.Lstat(s.folder.Blob(dgst))
	switch {
	case err == nil:
		err = run.visit(dgst, info)
	case errors.Is(err, fs.ErrNotExist):
		err = nil // it was evicted
		s.setDamaged(dgst, false)
	}
	if err != nil && s.ctx.Err() == nil {
		s.log.Warn("a blob that could not be read could not be checked", "digest", dgst, "error", err)
	}
}
