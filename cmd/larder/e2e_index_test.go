package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/cache/cachetest"
)

// damagedIndexes are kinds of damage to the index of a Larder that does not run.
var damagedIndexes = []struct {
	name   string
	damage func(index string) error
}{
	{"deleted", os.RemoveAll},
	{"truncated", eachIndexFile(func(path string) error { return os.Truncate(path, 100) })},
	{"garbage", eachIndexFile(func(path string) error { return os.WriteFile(path, []byte("nothing that Badger wrote"), 0o600) })},
}

func eachIndexFile(damage func(path string) error) func(index string) error {
	return func(index string) error {
		paths, err := filepath.Glob(filepath.Join(index, "*"))
		if len(paths) == 0 {
			err = errors.Join(err, errors.New("the index has no files"))
		}
		for _, path := range paths {
			err = errors.Join(err, damage(path))
		}
		return err
	}
}

func TestLostIndexFetchesNoLayerAgain(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	image := s.ecr.add(t, plainImage{Repository: "edge/app", Tag: "1", Seed: 1, Layers: []int64{1 << 10, 20 << 20}})
	requirePull(t, s.newPullers(t, 1), "edge/app", "1", image.Root.Digest)
	lose := func(t *testing.T, damage func(index string) error) {
		t.Helper()
		if err := errors.Join(s.larder.stop(syscall.SIGTERM), cachetest.Check(s.cache)); err != nil {
			t.Fatal(err)
		}
		if err := damage(filepath.Join(s.cache, "index")); err != nil {
			t.Fatal(err)
		}
		s.startLarder(t)
	}
	for _, d := range damagedIndexes {
		t.Run(d.name+" with its snapshot", func(t *testing.T) {
			lose(t, func(index string) error { return errors.Join(os.Remove(index+".snapshot"), d.damage(index)) })
			for range 2 { // the first confirms the tag
				requirePull(t, s.newPullers(t, 1), "edge/app", "1", image.Root.Digest)
			}
			requirePull(t, s.newPullers(t, 1), "edge/app", image.Root.Digest.String(), image.Root.Digest)
			sent := s.ecr.stats(t).Blobs
			for _, blob := range image.Blobs {
				// Without the snapshot it is asked for a few bytes, which prove that the repository has the blob.
				if got := sent[blob.Digest].Bytes; got < blob.Size || got > blob.Size+1024 {
					t.Errorf("the upstream sent %d bytes of %s, want %d and some", got, blob.Digest, blob.Size)
				}
			}
		})
	}
	s.ecr.kill()
	for _, d := range damagedIndexes {
		t.Run(d.name+" with the upstream dead", func(t *testing.T) {
			lose(t, d.damage)
			s.servesWithoutUpstream("edge/app", "1", image.Root.Digest)(t)
		})
	}
}
