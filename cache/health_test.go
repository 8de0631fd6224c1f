package cache

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"golang.org/x/sys/unix"
)

// ailing is a disk that fails as it is told.
type ailing struct {
	failure atomic.Pointer[unix.Errno] // of every step, if there is one
	tried   atomic.Int64               // steps that failed
}

func (a *ailing) disk() disk.Steps {
	return disk.Steps{Around: func(_ disk.Step, take func() error) error {
		if failure := a.failure.Load(); failure != nil {
			a.tried.Add(1)
			return *failure
		}
		return take()
	}}
}

// journal is a log that may be read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// lines counts those with this text.
func (j *journal) lines(text string) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.text.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func (j *journal) log() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

const (
	saidIll  = "the disk does not accept writes"
	saidWell = "the disk accepts writes again"
)

// said fails the test unless the log says that the disk is ill, and well, so
// often, and nothing else that is a warning.
func (j *journal) said(t *testing.T, ill, well int) {
	t.Helper()
	if i, w := j.lines(saidIll), j.lines(saidWell); i != ill || w != well || j.lines("level=ERROR") != ill || j.lines("level=WARN") > 0 {
		t.Errorf("ill was said %d times, well %d times; want %d and %d, and nothing else that is wrong:\n%s", i, w, ill, well, &j.text)
	}
}

func TestIllDiskIsPassedBySaidOnceAndUsedAgain(t *testing.T) {
	for _, c := range []struct {
		illness unix.Errno
		spared  bool // it is left alone until the next check-up
	}{
		{unix.EIO, true},
		{unix.EROFS, true},
		{unix.ENOSPC, false},
		{unix.EDQUOT, false},
	} {
		t.Run(c.illness.Error(), func(t *testing.T) {
			var log journal
			var a ailing
			opts := small
			opts.Log, opts.steps, opts.Meter = log.log(), a.disk(), newMeter()
			s := openStore(t, t.TempDir(), opts)
			kept, o := filltest.New(1000, 1), filltest.New(3<<20, 2)
			pullLayers(t, s, kept)
			if err := s.Degraded(); err != nil {
				t.Errorf("a disk that is well: %v", err)
			}

			a.failure.Store(&c.illness)
			for range 3 {
				if state := pull(t, s, o); state != Bypass {
					t.Errorf("while the disk fails: %s", state)
				}
				settle(s)
			}
			img := newImage("v1", o)
			pullTag(t, s, team, "v1", img)
			if state := pull(t, s, kept); state != Hit {
				t.Errorf("what is in the cache: %s", state)
			}
			if err := s.Degraded(); !errors.Is(err, c.illness) {
				t.Errorf("degraded: %v", err)
			}
			tried := a.tried.Load()
			pull(t, s, o)
			settle(s)
			if spared := a.tried.Load() == tried; spared != c.spared {
				t.Errorf("a disk that is known to be ill is left alone: %t", spared)
			}
			s.blobs.CheckDisk()
			log.said(t, 1, 0)

			a.failure.Store(nil)
			s.blobs.CheckDisk()
			if err := s.Degraded(); err != nil {
				t.Errorf("when the disk is well again: %v", err)
			}
			if state := pull(t, s, o); state != Miss {
				t.Errorf("when the disk is well again: %s", state)
			}
			settle(s)
			if state := pull(t, s, o); state != Hit {
				t.Errorf("when the disk was well again: %s", state)
			}
			log.said(t, 1, 1)
			checkCharges(t, s)
		})
	}
}

// What fails while a disk that was ill is found well must not be taken for
// recovered.
func TestFailureDuringACheckUpCounts(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	s.health.Note(unix.EIO)
	before := s.health.Failures()
	s.health.Note(unix.EIO)
	s.health.Recovered(before)
	if s.Degraded() == nil {
		t.Error("the failure was forgotten")
	}
	before = s.health.Failures()
	if err := s.blobs.ReserveBytes(t.Context(), 1); !s.health.Note(err) {
		t.Errorf("a disk that fails is written to: %v", err)
	}
	s.health.Recovered(before) // what was refused is no failure
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded: %v", err)
	}
}

func TestIllDiskIsLookedAtByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a ailing
		opts := small
		opts.steps = a.disk()
		s := openStore(t, t.TempDir(), opts)
		<-s.blobs.Loaded()
		eio := unix.EIO
		a.failure.Store(&eio)
		s.health.Note(unix.EIO)
		pass(3 * checkEvery)
		if s.Degraded() == nil {
			t.Error("a disk that fails is called well")
		}
		a.failure.Store(nil)
		pass(2 * checkEvery)
		if err := s.Degraded(); err != nil {
			t.Errorf("a disk that is well: %v", err)
		}
	})
}

func TestWhatDoesNotFitIsNoIllness(t *testing.T) {
	s := openStore(t, t.TempDir(), bounded)
	if state := pull(t, s, filltest.New(20<<20, 1)); state != Bypass {
		t.Errorf("a blob larger than the cache: %s", state)
	}
	settle(s)
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded: %v", err)
	}
}

func TestDiskThatOthersHaveFilledIsToldAndUsedAgain(t *testing.T) {
	disk := fullDisk(t, 200<<20, 180<<20)
	var log journal
	s := openStore(t, filepath.Join(disk, "cache"), Options{Segment: small.Segment, Log: log.log()})
	o := filltest.New(20<<20, 2)
	<-s.blobs.Loaded()
	fillUp(t, disk)
	for range 2 {
		if state := pull(t, s, o); state != Bypass {
			t.Errorf("on a full disk: %s", state)
		}
		settle(s)
		s.blobs.CheckDisk()
	}
	if err := s.Degraded(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("degraded: %v", err)
	}
	log.said(t, 1, 0)
	if err := unix.Truncate(filepath.Join(disk, "more"), 0); err != nil {
		t.Fatal(err)
	}
	s.blobs.CheckDisk()
	if err := s.Degraded(); err != nil {
		t.Errorf("with room again: %v", err)
	}
	log.said(t, 1, 1)
	if state := pull(t, s, o); state != Miss {
		t.Errorf("with room again: %s", state)
	}
}

func TestReadOnlyDiskIsServedFromAndUsedAgain(t *testing.T) {
	dir := t.TempDir()
	var log journal
	s := openStore(t, dir, Options{Segment: small.Segment, Log: log.log(), Tags: freshness})
	kept, o := filltest.New(1000, 1), filltest.New(3<<20, 2)
	pullTag(t, s, team, "v1", newImage("a", kept), kept)
	// The kernel would refuse to make the file system of open files read-only.
	// What is mounted over it is seen by who opens a file from now on.
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("mounting takes root: %v", err)
	}
	back := sync.OnceFunc(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(back)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	s.blobs.CheckDisk()
	if err := s.Degraded(); !errors.Is(err, unix.EROFS) {
		t.Errorf("degraded: %v", err)
	}
	for range 2 {
		if state := pull(t, s, o); state != Bypass {
			t.Errorf("on a read-only disk: %s", state)
		}
		settle(s)
	}
	img := newImage("b", o)
	pullTag(t, s, team, "v2", img)
	if state := pull(t, s, kept); state != Hit {
		t.Errorf("what is in the cache: %s", state)
	}
	if _, err := s.Stats(); err != nil {
		t.Errorf("stats: %v", err)
	}
	log.said(t, 1, 0)
	back()
	s.blobs.CheckDisk()
	if err := s.Degraded(); err != nil {
		t.Errorf("when it can be written again: %v", err)
	}
	log.said(t, 1, 1)
	pullLayers(t, s, o)
	if state := pull(t, s, o); state != Hit {
		t.Errorf("when it could be written again: %s", state)
	}
}

// A user's quota is in no statfs(2), and leaves room for the small file of a
// check-up.
func TestDiskThatFailsAgainAndAgainIsSaidLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		opts := small
		opts.Log = log.log()
		s := openStore(t, t.TempDir(), opts)
		<-s.blobs.Loaded()
		const every, turns = time.Minute, 20
		for range turns {
			s.health.Note(unix.EDQUOT)
			pass(every)
		}
		if n := log.lines(saidIll); n < 2 || n > 3 {
			t.Errorf("in %v it was said %d times", turns*every, n)
		}
		pass(4 * time.Minute)
		if err := s.Degraded(); err != nil {
			t.Errorf("when nothing had failed for a while: %v", err)
		}
		before := log.lines(saidIll)
		pass(2 * time.Hour)
		s.health.Note(unix.EIO)
		pass(2 * checkEvery)
		if err := s.Degraded(); err != nil || log.lines(saidIll) != before+1 {
			t.Errorf("a failure long after: %v\n%s", err, &log.text)
		}
	})
}
