package records_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
)

// withSnapshot returns a folder with everything in its index and its snapshot, and with a
// blob.
func withSnapshot(t *testing.T) (dir string, folder *disk.Folder) {
	t.Helper()
	dir = t.TempDir()
	s := open(t, dir)
	must(t, s.folder.WriteBlob(digest.FromString("a blob"), []byte("a blob")))
	fill(t, s.Index)
	s.save(t)
	s.close(t)
	return dir, s.folder
}

// setAside returns the folders of indexes that were set aside.
func setAside(t *testing.T, dir string) []string {
	t.Helper()
	aside, err := filepath.Glob(filepath.Join(dir, "index.broken-*"))
	must(t, err)
	return aside
}

func TestDamagedIndexIsRestoredFromItsSnapshot(t *testing.T) {
	for name, damage := range cachetest.IndexDamages() {
		t.Run(name, func(t *testing.T) {
			dir, folder := withSnapshot(t)
			must(t, damage(folder.Index()))
			s := open(t, dir)
			if diff := cmp.Diff(everything(), read(t, s.Index)); diff != "" {
				t.Error(diff)
			}
			if s.InMemory() {
				t.Error("the new index is in memory")
			}
		})
	}
}

func TestNewIndexIsRebuiltAndScrubbed(t *testing.T) {
	dir, folder := withSnapshot(t)
	if s := open(t, t.TempDir()); s.Rebuilding() || s.ScrubPosition().AtOnce {
		t.Error("the index of an empty folder is treated as lost")
	}
	must(t, os.RemoveAll(folder.Index()))
	for range 2 { // this is recorded until the rebuild is done
		s := open(t, dir)
		if !s.Rebuilding() || !s.ScrubPosition().AtOnce {
			t.Errorf("rebuilding: %t, scrub: %+v", s.Rebuilding(), s.ScrubPosition())
		}
		s.close(t)
	}
	s := open(t, dir)
	must(t, s.SetRebuilding(false))
	s.close(t)
	if open(t, dir).Rebuilding() {
		t.Error("the index is rebuilt again")
	}
}

func TestIndexOfAnotherVersionIsSetAside(t *testing.T) {
	for _, version := range []int{0, 2} {
		dir, _ := withSnapshot(t)
		s := open(t, dir)
		must(t, s.SetVersion(version), s.Close(), s.folder.Close())
		s.closed = true // the checker does not accept the version
		s = open(t, dir)
		if diff := cmp.Diff(everything(), read(t, s.Index)); diff != "" {
			t.Error(diff)
		}
		if aside := setAside(t, dir); len(aside) != 1 {
			t.Errorf("version %d: set aside: %v", version, aside)
		}
	}
}

// Processes crash while they open the index.
func TestIndexThatCrashesTheProcessIsSetAside(t *testing.T) {
	const patience = 3 // as FORMAT.md says
	dir, folder := withSnapshot(t)
	for crashes := range patience + 1 {
		must(t, os.WriteFile(folder.IndexOpening(), make([]byte, crashes), 0o600))
		s := open(t, dir)
		if diff := cmp.Diff(everything(), read(t, s.Index)); diff != "" {
			t.Error(diff)
		}
		s.close(t)
		if aside := setAside(t, dir); (len(aside) == 0) != (crashes < patience) {
			t.Errorf("after %d crashes: set aside: %v", crashes, aside)
		}
	}
}

func TestIndexThatHasLostItsLatestRecordsTakesThemFromTheSnapshot(t *testing.T) {
	dir, folder := withSnapshot(t)
	before := filepath.Join(t.TempDir(), "index")
	must(t, os.CopyFS(before, os.DirFS(folder.Index())))
	s := open(t, dir)
	must(t, s.PutTag(other, "v3", records.Tag{Digest: layer, Checked: now}))
	s.save(t)
	s.close(t)
	must(t, os.RemoveAll(folder.Index()), os.CopyFS(folder.Index(), os.DirFS(before)))
	s = open(t, dir)
	if rec, err := s.Tag(other, "v3"); err != nil || rec.Digest != layer {
		t.Errorf("the tag: %+v, %v", rec, err)
	}
	if rec, err := s.Blob(manifest); err != nil || !rec.IsManifest() {
		t.Errorf("the record of a manifest was replaced by that of the snapshot: %+v, %v", rec, err)
	}
	if !s.Rebuilding() {
		t.Error("records of manifests may be missing, but the index is not being rebuilt")
	}
}

func TestUndecodableScrubPositionIsForgotten(t *testing.T) {
	s := open(t, t.TempDir())
	for _, raw := range []string{`{"after":"sha256:../../etc","begun":"2001-09-09T01:46:40Z"}`, `"noise"`} {
		must(t, s.PutScrub(raw))
		if pos := s.ScrubPosition(); pos != (records.ScrubPosition{}) {
			t.Errorf("%s: %+v", raw, pos)
		}
	}
	must(t, s.PutScrubPosition(records.ScrubPosition{})) // so that the folder passes its check
}

// The index of the snapshot would be about as large as the free space. The snapshot is a hole,
// so it is ignored after that decision.
func TestIndexIsCreatedOnDiskOnlyIfThereIsSpace(t *testing.T) {
	for name, c := range map[string]struct {
		part     float64 // of the free space, which the index needs
		inMemory bool
	}{
		"it fits":         {0.8, false},
		"it does not fit": {1.25, true},
	} {
		t.Run(name, func(t *testing.T) {
			const perSnapshot = 20 // as FORMAT.md says
			dir := t.TempDir()
			folder, err := disk.Open(dir, disk.Steps{}, discard)
			must(t, err)
			free, err := folder.Free()
			must(t, err, folder.Close())
			must(t, cachetest.Noise(folder.Snapshot()), os.Truncate(folder.Snapshot(), int64(c.part*float64(free))/perSnapshot))
			s := open(t, dir)
			if s.InMemory() != c.inMemory {
				t.Errorf("in memory: %t", s.InMemory())
			}
			must(t, os.Remove(folder.Snapshot())) // so that the folder passes its check
		})
	}
}

// The index is in memory. The snapshot is a little smaller or larger than 16 MiB.
func TestLargeSnapshotIsNotLoadedIntoMemory(t *testing.T) {
	const bound, name = 16 << 20, 60_000
	for _, c := range []struct {
		tags   int
		loaded bool
	}{
		{bound/name - 4, true},
		{bound/name + 4, false},
	} {
		t.Run(fmt.Sprint(c.tags, " tags"), func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			repo := func(i int) records.Repository {
				return records.Repository{Upstream: "registry.test", Name: strings.Repeat("a", name) + fmt.Sprint(i)}
			}
			for i := range c.tags {
				must(t, s.PutTag(repo(i), "v1", records.Tag{Digest: layer, Checked: now}))
			}
			s.save(t)
			s.close(t)
			info, err := os.Stat(s.folder.Snapshot())
			must(t, err)
			if c.loaded != (info.Size() <= bound) {
				t.Fatalf("the snapshot has %d bytes", info.Size())
			}
			must(t, os.MkdirAll(filepath.Join(s.folder.IndexOpening(), "x"), 0o700)) // so that the index cannot be opened
			s = open(t, dir)
			if !s.InMemory() {
				t.Fatal("the index is on disk")
			}
			if _, err := s.Tag(repo(0), "v1"); (err == nil) != c.loaded {
				t.Errorf("the first tag: %v", err)
			}
			must(t, os.RemoveAll(s.folder.IndexOpening())) // so that the folder passes its check
		})
	}
}
