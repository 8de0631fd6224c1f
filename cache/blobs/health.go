package blobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/records"
)

// Trouble logs what an error has cost. If the disk as a whole is the cause, or the index as a
// whole, that has been logged already, and this line is for debugging.
func (s *Store) Trouble(level slog.Level, text string, err error, args ...any) {
	s.adoptQuota(err)
	if s.Health.Note(err) || errors.Is(err, records.ErrDamaged) {
		level = slog.LevelDebug
	}
	s.Log.Log(context.Background(), level, text, append(args, "error", err)...)
}

// adoptQuota makes the cache keep below a disk quota, if that is why something could not be
// written and the cache has enough blobs to do without some.
func (s *Store) adoptQuota(err error) bool {
	if !disk.IsQuota(err) {
		return false
	}
	bound, first := s.Space.AdoptQuota()
	if first {
		s.Log.Warn("a quota does not let the cache become as large as max_size: it keeps below the quota", "bytes", bound, "error", err)
	}
	return bound > 0
}

// CheckDisk finds out whether the disk is healthy. It costs a statfs, and while the disk
// fails the writing of a small file.
func (s *Store) CheckDisk() {
	failures := s.Health.Failures()
	err := s.checkDiskFree()
	if err == nil && s.Health.Failure() != nil {
		err = s.Folder.Probe()
	}
	if errors.Is(err, unix.ENOSPC) {
		s.askForEviction() // as far as that helps
	}
	if err == nil {
		s.Health.Recovered(failures)
	} else if !s.Health.Note(err) {
		s.Log.Warn("the disk could not be checked", "error", err)
	}
}

// checkDiskFree returns ENOSPC if others have filled the disk so far that evicting the whole
// cache would not help, and EROFS if the disk is read-only.
func (s *Store) checkDiskFree() error {
	lack, err := s.Space.Lack()
	if err != nil || !lack.IsPositive() {
		return err
	}
	could := s.unprotected() // if it is read, when it is closed
	could.Bytes += s.Unlinked()
	if !lack.Within(could) {
		return fmt.Errorf("others have filled the disk of the cache: %v are missing, and the cache could free %v: %w",
			lack.AtLeastNone(), could, unix.ENOSPC)
	}
	return s.Folder.CheckFree(0, disk.IndexReserve)
}
