package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"golang.org/x/sys/unix"
)

// Degraded returns why nothing is kept at the moment, or nil: the disk is full
// of what others wrote, read-only, or fails. What is in the cache is served all
// the same, and all else passed through.
func (s *Store) Degraded() error { return s.health.Failure() }

// checkUpEvery is how often the disk is looked at: how long it takes at most
// until a disk that recovered is used again. It costs a statfs, and while the
// disk is ill the writing of a small file.
const checkUpEvery = 5 * time.Second

// trouble logs what an error has cost. Where the disk as a whole is why, that is
// said already, and this is for debugging.
func (s *Store) trouble(level slog.Level, text string, err error, args ...any) {
	s.confine(err)
	if s.health.Note(err) {
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, text, append(args, "error", err)...)
}

// checkUp finds out whether the disk is well. It asks nothing of a disk that is,
// beside how much space it has.
func (s *Store) checkUp() {
	failures := s.health.Failures()
	err := s.lacksRoom()
	if err == nil && s.health.Failure() != nil {
		err = s.folder.Probe()
	}
	if errors.Is(err, unix.ENOSPC) {
		s.evictOn() // as far as that helps
	}
	if err == nil {
		s.health.Recovered(failures)
	} else if !s.health.Note(err) {
		s.log.Warn("the disk could not be looked at", "error", err)
	}
}

// lacksRoom returns ENOSPC where others have filled the disk so far that all of
// the cache would not make up for it, and EROFS where it is read-only.
func (s *Store) lacksRoom() error {
	lack, err := s.space.Lack()
	if err != nil || lack <= 0 {
		return err
	}
	if evictable := s.evictable(); lack > evictable {
		return fmt.Errorf("%s: others have filled the disk: %d bytes are missing, and the cache could free %d: %w",
			s.folder.Dir(), lack, evictable, unix.ENOSPC)
	}
	return s.folder.CheckFree(0, disk.IndexReserve)
}
