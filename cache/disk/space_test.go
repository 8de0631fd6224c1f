package disk_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/larder-registry/larder/cache/disk"
)

// The size includes every file but those of blobs and partials, which the store reserves.
func TestSizeCountsEverythingInTheFolder(t *testing.T) {
	dir := t.TempDir()
	f := openFolder(t, dir)
	for name, size := range map[string]int{
		"index/000001.sst":      5 << 20,
		"index.broken-1/1.vlog": 3 << 20,
		"index.snapshot":        1 << 20,
		"blobs/sha256/00/blob":  7 << 20, // counted by the store
		"partial/blob":          7 << 20, // likewise
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	space := disk.NewSpace(f, disk.Bounds{})
	if err := space.Measure(); err != nil {
		t.Fatal(err)
	}
	const want = disk.BallastSize + 9<<20
	const names = 20 * disk.BlockSize // the folders themselves, the lock and the version
	if got := space.Size(); got < want || got > want+names {
		t.Errorf("counted %d bytes, want %d and up to %d for names", got, int64(want), int64(names))
	}
}
