package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
	"golang.org/x/sys/unix"
)

func TestSnapshotIsWrittenAtMostAMinuteAfterAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), edgeOptions)
		img, o := newImage("a"), filltest.New(1000, 1)
		loaded(t, s)
		written := func() fs.FileInfo {
			t.Helper()
			pass(time.Minute)
			synctest.Wait()
			info, err := os.Stat(s.folder.Snapshot())
			if err != nil {
				t.Fatal(err)
			}
			return info
		}
		last := written() // the content of the folder at the start
		for name, change := range map[string]func(){
			"a tag":  func() { resolve(t, s, img.ask, Miss, img) },
			"a blob": func() { pull(t, s, o); settle(t, s) },
		} {
			change()
			next := written()
			if os.SameFile(last, next) {
				t.Errorf("there was no new snapshot after %s", name)
			}
			if last = next; !os.SameFile(last, written()) {
				t.Errorf("another snapshot was written without a change after %s", name)
			}
		}
		pull(t, s, o) // this changes the time of its use
		if next := written(); os.SameFile(last, next) {
			t.Error("there was no new snapshot after a hit")
		}
	})
}

// Each step of writing the new snapshot fails.
func TestSnapshotIsKeptUntilANewOneIsWritten(t *testing.T) {
	for _, failing := range []disk.Op{disk.OpCreate, disk.OpWrite, disk.OpSync, disk.OpRename, disk.OpSyncDir} {
		t.Run(string(failing), func(t *testing.T) {
			dir := t.TempDir()
			fail := false
			opts := edgeOptions
			var log bytes.Buffer
			opts.Log = slog.New(slog.NewTextHandler(&log, nil))
			opts.steps.Around = func(s disk.Step, take func() error) error {
				if fail && s.Op == failing {
					return unix.EINVAL // after EIO the store would not write at all
				}
				return take()
			}
			s := openStore(t, dir, opts)
			loaded(t, s)
			e := newEdge()
			e.fill(t, s)
			s.saveSnapshot(t.Context())
			if err := s.Unpin(team, "index"); err != nil { // a change
				t.Fatal(err)
			}
			fail = true
			for range 2 {
				s.saveSnapshot(t.Context())
			}
			fail = false
			if n := strings.Count(log.String(), "could not be written"); n != 1 {
				t.Errorf("the failure was logged %d times", n)
			}
			if _, err := os.Stat(s.folder.NewSnapshot()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the unfinished snapshot is left: %v", err)
			}
			kept := indexOf(t, s.folder.Snapshot())
			if _, err := kept.Tag(team, "plain"); err != nil {
				t.Errorf("a tag of the older snapshot: %v", err)
			}
			checkCharges(t, s)
		})
	}
}

func TestSnapshotIsCountedAndEvictsBlobs(t *testing.T) {
	s := openStore(t, t.TempDir(), bounded)
	var all []*filltest.Origin
	for i := range 8 {
		all = append(all, filltest.New(1<<20, uint64(i)))
	}
	for _, o := range all {
		pull(t, s, o)
		settle(t, s)
	}
	// With these long names the snapshot does not fit beside the blobs.
	for i := range 60 {
		repo := Repository{Upstream: "registry.example", Name: strings.Repeat(fmt.Sprint(i%10), 60_000) + fmt.Sprint(i)}
		if err := s.index.PutTag(repo, "v", records.Tag{Digest: all[0].Digest, Checked: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	s.saveSnapshot(t.Context())
	info, err := os.Stat(s.folder.Snapshot())
	if err != nil || info.Size() < 3<<20 {
		t.Fatalf("the snapshot: %v, %v", info, err)
	}
	if n := usage(t, s); n > bounded.MaxSize {
		t.Errorf("the folder takes %d bytes, want at most %d", n, bounded.MaxSize)
	}
	used, _ := s.space.Account()
	counted := s.space.Size() - used
	if want := info.Size() + disk.BallastSize; counted < want {
		t.Errorf("%d bytes are counted beside the blobs, want at least %d", counted, want)
	}
}

func TestSnapshotIsLoadedIntoMemoryOnAFullDisk(t *testing.T) {
	disk := fullDisk(t, 200<<20, 110<<20)
	dir := filepath.Join(disk, "cache")
	s := openStore(t, dir, edgeOptions)
	e := newEdge()
	e.fill(t, s)
	closeStore(t, s)
	if err := os.Remove(s.folder.Ballast()); err != nil {
		t.Fatal(err)
	}
	fillUp(t, disk)
	s = openStore(t, dir, edgeOptions)
	if !s.index.InMemory() {
		t.Fatal("the index was opened on a full disk")
	}
	e.check(t, s)
	if err := errors.Join(os.Remove(filepath.Join(disk, "more")), os.Truncate(filepath.Join(disk, "hog"), 0)); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = openStore(t, dir, edgeOptions) // the snapshot was not overwritten
	e.checkKept(t, s)
}

// indexOf returns the index that is restored from a snapshot in another folder.
func indexOf(t *testing.T, snapshot string) *records.Index {
	t.Helper()
	dir := t.TempDir()
	raw, err := os.ReadFile(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	folder, err := disk.Open(dir, disk.Steps{}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder.Snapshot(), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	ix, err := records.Open(folder, disk.NewHealth(log), 2, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(ix.Close(), folder.Close()); err != nil {
			t.Error(err)
		}
	})
	return ix
}
