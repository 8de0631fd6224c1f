package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"golang.org/x/sys/unix"
)

// The tests of this file check that a scrub leaves the disk and the page cache to others.

// From linux/ioprio.h. With the id 0 the calls are about the calling thread.
const (
	ioprioWhoProcess = 1
	ioprioClassShift = 13
	ioprioIdle       = 3
)

// threadIOClass returns the I/O class of the calling thread.
func threadIOClass() (uintptr, error) {
	priority, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return priority >> ioprioClassShift, nil
}

// requireIdleClass skips the test if a thread cannot have the idle I/O class here.
func requireIdleClass(t *testing.T) {
	t.Helper()
	failure := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		_, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioIdle<<ioprioClassShift)
		class, err := threadIOClass()
		if errno != 0 || class != ioprioIdle {
			err = errors.Join(err, fmt.Errorf("the class is %d: %w", class, errno))
		}
		failure <- err
	}()
	if err := <-failure; err != nil {
		t.Skipf("the idle I/O class cannot be set: %v", err)
	}
}

// damageLog is a log handler that sends the I/O class of the thread that logs a damaged blob.
type damageLog struct{ class chan uintptr } // capacity 1

func (damageLog) Enabled(context.Context, slog.Level) bool { return true }

func (l damageLog) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l damageLog) WithGroup(string) slog.Handler { return l }

func (l damageLog) Handle(_ context.Context, r slog.Record) error {
	if !strings.Contains(r.Message, "damaged") {
		return nil
	}
	class, err := threadIOClass()
	if err != nil {
		return err
	}
	l.class <- class
	return nil
}

// The thread that scrubs also logs that a blob is damaged.
func TestBackgroundScrubHasTheIdleIOClass(t *testing.T) {
	requireIdleClass(t)
	dir := t.TempDir()
	s := openStore(t, dir, Options{ScrubEvery: -1})
	o := stock(t, s, 1, 1000)[0]
	closeStore(t, s)
	flip(t, s, o.Digest, 0)
	if err := os.RemoveAll(s.folder.Index()); err != nil { // so that the scrub begins at once
		t.Fatal(err)
	}
	log := damageLog{make(chan uintptr, 1)}
	openStore(t, dir, Options{Log: slog.New(log)})
	if class := receive(t, log.class, "the scrub finds the damaged blob"); class != ioprioIdle {
		t.Errorf("the I/O class of the scrub is %d, want %d (idle)", class, ioprioIdle)
	}
}

// uncachedFolder returns a folder on a file system that can drop files from the page cache. It
// skips the test if there is none.
func uncachedFolder(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{os.TempDir(), "/var/tmp", "."} {
		dir, err := os.MkdirTemp(parent, "larder-scrub-*") //nolint:usetesting // t.TempDir may be in memory
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		if canDrop(t, filepath.Join(dir, "probe")) {
			return dir
		}
	}
	t.Skip("no file system here drops files from the page cache, or the kernel is older than 6.5")
	return ""
}

// canDrop creates a file, and reports whether the kernel drops it from the page cache.
func canDrop(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	before, err := cachedPages(path)
	if err != nil || before == 0 {
		return false
	}
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		return false
	}
	after, err := cachedPages(path)
	return err == nil && after == 0
}

// cachedPages returns how many pages of a file are in the page cache.
func cachedPages(path string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var whole unix.CachestatRange
	var stat unix.Cachestat_t
	err = unix.Cachestat(uint(f.Fd()), &whole, &stat, 0)
	return stat.Cache, err
}

func TestScrubLeavesNothingInThePageCache(t *testing.T) {
	s := openStore(t, filepath.Join(uncachedFolder(t), "cache"), Options{ScrubEvery: -1})
	o := filltest.New(3<<20+100, 1)
	pull(t, s, o)
	settle(t, s)
	path := s.folder.Blob(o.Digest)
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if n, err := cachedPages(path); err != nil || n == 0 {
		t.Fatalf("%d pages are in the page cache before the scrub, %v", n, err)
	}
	before := bytesFromDisk(t)
	scrubbed(t, s, 1, 0)
	if n, err := cachedPages(path); err != nil || n > 0 {
		t.Errorf("%d pages are in the page cache after the scrub, %v; want none", n, err)
	}
	if n := bytesFromDisk(t) - before; n < int64(len(o.Content)) {
		t.Errorf("the scrub read %d bytes from the disk, want %d: the others came from the page cache", n, len(o.Content))
	}
}

// bytesFromDisk returns how many bytes this process has read from disks.
func bytesFromDisk(t *testing.T) int64 {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "\nread_bytes: ")
	var n int64
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
