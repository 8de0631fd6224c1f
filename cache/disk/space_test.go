package disk_test

import (
	"math"
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

// An upstream may say any size.
func TestNoSizeOverflowsTheAccounting(t *testing.T) {
	space := disk.NewSpace(openFolder(t, t.TempDir()), disk.Bounds{MaxSize: 1 << 40, MinFree: 1 << 30})
	if err := space.Measure(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{1 << 41, 1 << 62, math.MaxInt64} {
		if err := space.CheckFits(n); err == nil {
			t.Errorf("%d bytes fit into a cache of 1 TiB", n)
		}
		if short, err := space.Reserve(n); short.Bytes <= 0 || err != nil {
			t.Errorf("%d bytes were reserved: %v short, %v", n, short, err)
		}
	}
	if used, unconfirmed := space.Account(); used != 0 || unconfirmed != 0 {
		t.Errorf("%d bytes are counted, %d of them reserved", used, unconfirmed)
	}
}
