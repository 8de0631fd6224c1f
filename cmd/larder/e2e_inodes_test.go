package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// takeAllInodes makes empty files until there is no inode left.
func takeAllInodes(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := os.CreateTemp(dir, "")
		if err != nil {
			return
		}
		f.Close()
	}
}

// Another process takes every inode.
func TestDiskWithoutInodesFailsNoPullAndLarderEndsAndStarts(t *testing.T) {
	t.Parallel()
	disk := deploytest.Tmpfs(t, "size=256m,nr_inodes=600")
	s := startStack(t)
	if err := s.larder.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	s.moveCache(t, filepath.Join(disk, "cache"))
	s.startLarder(t)
	pull := func(tag string) {
		t.Helper()
		image := s.ecr.add(t, plainImage{Repository: "disk/app", Tag: tag, Seed: uint64(tag[0]), Layers: []int64{1 << 20, 100}})
		requirePull(t, s.newPullers(t, 2), "disk/app", tag, image.Root.Digest)
	}
	pull("a")
	others := filepath.Join(disk, "others")
	takeAllInodes(t, others)
	pull("b")
	s.larder.await(t, func(ctx context.Context) bool { return strings.HasPrefix(s.tells(ctx, t, "/readyz"), "degraded: ") })
	if err := s.larder.stop(syscall.SIGTERM); err != nil && strings.Contains(err.Error(), "killed") { // else it tells that the index was not closed
		t.Errorf("it did not end: %v", err)
	}
	takeAllInodes(t, others) // those of what it left
	s.startLarder(t)
	pull("c")
	pull("a")
	if !strings.Contains(s.larder.logged(), "its socket cannot be made") {
		t.Errorf("the log does not tell that there is no socket:\n%s", s.larder.logged())
	}
	if err := os.RemoveAll(others); err != nil {
		t.Fatal(err)
	}
	s.larder.await(t, func(ctx context.Context) bool { return s.tells(ctx, t, "/readyz") == "ok\n" })
	pull("d")
	if err := s.larder.stop(syscall.SIGTERM); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
