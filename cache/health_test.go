package cache

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/deploy/deploytest"
)

// failingDisk is a disk whose steps fail while failure is set.
type failingDisk struct {
	failure atomic.Pointer[unix.Errno] // of every step, if not nil
	tried   atomic.Int64               // steps that failed
}

func (a *failingDisk) steps() disk.Steps {
	return disk.Steps{Around: func(_ disk.Step, take func() error) error {
		if failure := a.failure.Load(); failure != nil {
			a.tried.Add(1)
			return *failure
		}
		return take()
	}}
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// lines returns how many lines contain a text.
func (b *logBuffer) lines(text string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.text.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func (b *logBuffer) log() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

const (
	failingMessage   = "the disk does not accept writes"
	recoveredMessage = "the disk accepts writes again"
)

// wantLogged fails the test unless the log has this many lines that the disk fails and that
// it works again, and no other errors or warnings.
func (b *logBuffer) wantLogged(t *testing.T, failing, recovered int) {
	t.Helper()
	if i, w := b.lines(failingMessage), b.lines(recoveredMessage); i != failing || w != recovered || b.lines("level=ERROR") != failing || b.lines("level=WARN") > 0 {
		t.Errorf("the log has %d failures and %d recoveries; want %d, %d and no other errors or warnings:\n%s", i, w, failing, recovered, &b.text)
	}
}

func TestFailingDiskIsLoggedOnceAndUsedAgain(t *testing.T) {
	for _, c := range []struct {
		failure   unix.Errno
		leftAlone bool // nothing is written until the next check
	}{
		{unix.EIO, true},
		{unix.EROFS, true},
		{unix.ENOSPC, false},
		{unix.EDQUOT, false},
	} {
		t.Run(c.failure.Error(), func(t *testing.T) {
			var log logBuffer
			var a failingDisk
			opts := small
			opts.Log, opts.steps, opts.Meter = log.log(), a.steps(), newMeter()
			s := openStore(t, t.TempDir(), opts)
			kept, o := filltest.New(1000, 1), filltest.New(3<<20, 2)
			pullLayers(t, s, kept)
			if err := s.Degraded(); err != nil {
				t.Errorf("a healthy disk is degraded: %v", err)
			}

			a.failure.Store(&c.failure)
			for range 3 {
				if state := pull(t, s, o); state != Bypass {
					t.Errorf("while the disk fails: %s", state)
				}
				settle(t, s)
			}
			img := newImage("v1", o)
			pullTag(t, s, team, "v1", img)
			if state := pull(t, s, kept); state != Hit {
				t.Errorf("the blob in the cache: %s", state)
			}
			if err := s.Degraded(); !errors.Is(err, c.failure) {
				t.Errorf("degraded: %v", err)
			}
			tried := a.tried.Load()
			pull(t, s, o)
			settle(t, s)
			if leftAlone := a.tried.Load() == tried; leftAlone != c.leftAlone {
				t.Errorf("steps are tried on a disk that is known to fail: %t, want %t", !leftAlone, !c.leftAlone)
			}
			s.blobs.CheckDisk()
			log.wantLogged(t, 1, 0)

			a.failure.Store(nil)
			s.blobs.CheckDisk()
			if err := s.Degraded(); err != nil {
				t.Errorf("degraded after the disk recovered: %v", err)
			}
			if state := pull(t, s, o); state != Miss {
				t.Errorf("after the disk recovered: %s", state)
			}
			settle(t, s)
			if state := pull(t, s, o); state != Hit {
				t.Errorf("the second pull after the disk recovered: %s", state)
			}
			log.wantLogged(t, 1, 1)
			checkCharges(t, s)
		})
	}
}

func TestFailingDiskIsCheckedPeriodically(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a failingDisk
		opts := small
		opts.steps = a.steps()
		s := openStore(t, t.TempDir(), opts)
		loaded(t, s)
		eio := unix.EIO
		a.failure.Store(&eio)
		s.health.Note(unix.EIO)
		pass(3 * checkEvery)
		if s.Degraded() == nil {
			t.Error("a failing disk is not degraded")
		}
		a.failure.Store(nil)
		pass(2 * checkEvery)
		if err := s.Degraded(); err != nil {
			t.Errorf("a healthy disk is degraded: %v", err)
		}
	})
}

func TestBlobLargerThanTheCacheIsNotADiskFailure(t *testing.T) {
	s := openStore(t, t.TempDir(), bounded)
	if state := pull(t, s, filltest.New(20<<20, 1)); state != Bypass {
		t.Errorf("a blob larger than the cache: %s", state)
	}
	settle(t, s)
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded: %v", err)
	}
}

func TestFullDiskIsLoggedOnceAndUsedAgain(t *testing.T) {
	disk := fullDisk(t, 200<<20, 180<<20)
	var log logBuffer
	s := openStore(t, filepath.Join(disk, "cache"), Options{Segment: small.Segment, Log: log.log()})
	o := filltest.New(20<<20, 2)
	loaded(t, s)
	fillUp(t, disk)
	for range 2 {
		if state := pull(t, s, o); state != Bypass {
			t.Errorf("on a full disk: %s", state)
		}
		settle(t, s)
		s.blobs.CheckDisk()
	}
	if err := s.Degraded(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("degraded: %v", err)
	}
	log.wantLogged(t, 1, 0)
	if err := unix.Truncate(filepath.Join(disk, "more"), 0); err != nil {
		t.Fatal(err)
	}
	s.blobs.CheckDisk()
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded with free space again: %v", err)
	}
	log.wantLogged(t, 1, 1)
	if state := pull(t, s, o); state != Miss {
		t.Errorf("with free space again: %s", state)
	}
}

func TestReadOnlyDiskServesHitsAndIsUsedAgain(t *testing.T) {
	dir := t.TempDir()
	var log logBuffer
	s := openStore(t, dir, Options{Segment: small.Segment, Log: log.log(), Tags: freshness})
	kept, o := filltest.New(1000, 1), filltest.New(3<<20, 2)
	pullTag(t, s, team, "v1", newImage("a", kept), kept)
	writable := deploytest.ReadOnly(t, dir)
	s.blobs.CheckDisk()
	if err := s.Degraded(); !errors.Is(err, unix.EROFS) {
		t.Errorf("degraded: %v", err)
	}
	for range 2 {
		if state := pull(t, s, o); state != Bypass {
			t.Errorf("on a read-only disk: %s", state)
		}
		settle(t, s)
	}
	img := newImage("b", o)
	pullTag(t, s, team, "v2", img)
	if state := pull(t, s, kept); state != Hit {
		t.Errorf("the blob in the cache: %s", state)
	}
	if _, err := s.Stats(); err != nil {
		t.Errorf("stats: %v", err)
	}
	log.wantLogged(t, 1, 0)
	writable()
	s.blobs.CheckDisk()
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded when the disk is writable again: %v", err)
	}
	log.wantLogged(t, 1, 1)
	pullLayers(t, s, o)
	if state := pull(t, s, o); state != Hit {
		t.Errorf("when the disk was writable again: %s", state)
	}
}

// statfs(2) does not show the quota of a user, and there is space for the small file of a
// check.
func TestRepeatedDiskFailuresAreLoggedLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		opts := small
		opts.Log = log.log()
		s := openStore(t, t.TempDir(), opts)
		loaded(t, s)
		const every, turns = time.Minute, 20
		for range turns {
			s.health.Note(unix.EDQUOT)
			pass(every)
		}
		if n := log.lines(failingMessage); n < 2 || n > 3 {
			t.Errorf("in %v it was logged %d times", turns*every, n)
		}
		pass(4 * time.Minute)
		if err := s.Degraded(); err != nil {
			t.Errorf("degraded after some time without a failure: %v", err)
		}
		before := log.lines(failingMessage)
		pass(2 * time.Hour)
		s.health.Note(unix.EIO)
		pass(2 * checkEvery)
		if err := s.Degraded(); err != nil || log.lines(failingMessage) != before+1 {
			t.Errorf("a failure long after that: %v\n%s", err, &log.text)
		}
	})
}

func TestStoreOpensOnAReadOnlyDisk(t *testing.T) {
	deploytest.ReadOnly(t, t.TempDir())() // skips the test before it has damaged a folder
	for name, remove := range map[string][]string{
		"as it was left":                   nil,
		"without its lock and its version": {"larder.lock", "larder.version"},
		"without its index":                {"index"},
		"without anything":                 {"larder.lock", "larder.version", "index", "index.snapshot", "blobs", "partial"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			opts := Options{Segment: small.Segment, Tags: freshness}
			s := openStore(t, dir, opts)
			kept, o := filltest.New(100_000, 1), filltest.New(3<<20, 2)
			pullTag(t, s, team, "v1", newImage("a", kept), kept)
			closeStore(t, s)
			for _, file := range remove {
				if err := os.RemoveAll(filepath.Join(dir, file)); err != nil {
					t.Fatal(err)
				}
			}
			back := deploytest.ReadOnly(t, dir)
			var log logBuffer
			opts.Log = log.log()
			s, err := Open(dir, opts)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Degraded(); !errors.Is(err, unix.EROFS) {
				t.Errorf("degraded: %v", err)
			}
			if _, err := Open(dir, opts); err == nil || !strings.Contains(err.Error(), "in use by process") {
				t.Errorf("a second owner was told %v", err)
			}
			if len(remove) < 4 {
				if state := pull(t, s, kept); state != Hit {
					t.Errorf("what is in the cache: %s", state)
				}
				if _, _, err := s.Tag(t.Context(), team, "v1", dead); err != nil {
					t.Errorf("the tag: %v", err)
				}
			}
			for range 2 {
				if state := pull(t, s, o); state != Bypass {
					t.Errorf("what is not in the cache: %s", state)
				}
				settle(t, s)
			}
			<-s.blobs.Loaded()
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if log.lines(failingMessage) != 1 {
				t.Errorf("the log says:\n%s", &log.text)
			}
			back()
			s = openStore(t, dir, small)
			<-s.blobs.Loaded()
		})
	}
}
