package cache

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A rebuild finds the manifests among the files by their mode. With a umask of 0077 blobs have
// the mode of manifests. The test is white-box: the end of a rebuild is not visible from outside.
func TestLostIndexIsRebuiltWhereTheUmaskGaveBlobsTheModeOfManifests(t *testing.T) {
	before := unix.Umask(0o077) // of the process: no other test may run now
	defer unix.Umask(before)
	e, dir := newEdge(), t.TempDir()
	s := openStore(t, dir, edgeOptions)
	e.fill(t, s)
	closeStore(t, s)
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "*", "*", "*"))
	if err != nil || len(blobs) == 0 {
		t.Fatalf("blobs: %v, %v", blobs, err)
	}
	for _, path := range blobs {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != manifestMode {
			t.Fatalf("%s: %v, %v; want the mode of manifests", path, info.Mode(), err)
		}
	}
	for _, lost := range []string{s.folder.Index(), s.folder.Snapshot()} {
		if err := os.RemoveAll(lost); err != nil {
			t.Fatal(err)
		}
	}

	unix.Umask(before)
	var log bytes.Buffer
	opts := edgeOptions
	opts.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
	s = openStore(t, dir, opts)
	loaded(t, s)
	e.confirm(t, s)
	e.check(t, s)
	closeStore(t, s)
	if s.index.Rebuilding() || log.Len() > 0 {
		t.Errorf("the index is still to be rebuilt: %t; logged:\n%s", s.index.Rebuilding(), &log)
	}
}
