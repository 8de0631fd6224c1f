package records_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/cache/records"
)

// changes are what may happen to a file that is in use.
var changes = map[string]func(path string) error{
	"removed":           os.Remove,
	"made empty":        cachetest.Truncate(0),
	"made shorter":      cachetest.Truncate(100),
	"made longer":       func(path string) error { return appendTo(path, make([]byte, 1<<20)) },
	"zeroed":            overwrite(0),
	"filled with noise": overwrite(0xa7),
	"half zeroed":       func(path string) error { return overwriteFrom(path, 0, 0.5) },
	"zeroed at its end": func(path string) error { return overwriteFrom(path, 0.5, 1) },
	"a pipe":            func(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) },
	"a folder":          func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	"another file":      func(path string) error { return errors.Join(os.Remove(path), cachetest.Noise(path)) },
}

// isReplaced are the changes that leave the content alone that is mapped into memory.
var isReplaced = map[string]bool{"removed": true, "a pipe": true, "a folder": true, "another file": true}

func appendTo(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

func overwrite(with byte) func(path string) error {
	return func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return writeAt(path, 0, bytes.Repeat([]byte{with}, int(info.Size())))
	}
}

// overwriteFrom zeroes a part of a file.
func overwriteFrom(path string, from, to float64) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	size := float64(info.Size())
	return writeAt(path, int64(from*size), make([]byte, int64(to*size)-int64(from*size)))
}

// writeAt writes to a file that keeps its length.
func writeAt(path string, off int64, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, off)
	return errors.Join(err, f.Close())
}

// repair is Repair. The test fails if that does.
func (s *site) repair(t testing.TB, suspicious bool) (replaced bool) {
	t.Helper()
	replaced, err := s.Repair(t.Context(), suspicious, unbounded)
	must(t, err)
	return replaced
}

// useAll reads and writes the index in every way. Damage may make that fail.
func (s *site) useAll() {
	_, _ = s.Tag(team, "v1")
	_, _ = s.Member(team, layer)
	_, _ = s.Repositories(layer, 0)
	_, _ = s.Pins()
	_, _ = s.Verdicts()
	_ = s.EachManifest(func(digest.Digest, records.Blob) error { return nil })
	_ = s.PutScrubPosition(records.ScrubPosition{})
	_, _ = s.Tag(team, "unknown")
}

func TestFilesOfTheIndexMayChangeWhileItIsInUse(t *testing.T) {
	for _, file := range []string{"MANIFEST", "*.sst", "*.mem", "*.vlog", "KEYREGISTRY", "DISCARD"} {
		for change, damage := range changes {
			for _, used := range []bool{true, false} {
				t.Run(file+" "+change+map[bool]string{true: ", then used"}[used], func(t *testing.T) {
					t.Parallel() // they wait for the disk
					dir, folder := withSnapshot(t)
					s := open(t, dir)
					later := records.Tag{Digest: layer, Checked: now} // no snapshot has it yet
					must(t, s.PutTag(team, "later", later))
					must(t, cachetest.EachFile(file, damage)(folder.Index()))
					if used {
						s.useAll()
					}
					suspicious := false
					select {
					case <-s.Suspect():
						suspicious = true
					default:
					}
					replaced := s.repair(t, suspicious)
					if s.repair(t, true) {
						t.Error("it was replaced again")
					}
					must(t, s.SetRebuilding(false))
					for _, restarted := range []bool{false, true} {
						if restarted {
							s.closed = true // the checker would refuse what the next start replaces
							must(t, s.Close(), s.folder.Close())
							s = open(t, dir)
						}
						want, got := everything(), read(t, s.Index)
						switch {
						case file == "*.sst" && !isReplaced[change], restarted && !replaced: // it may be lost
							delete(got.Tags, team.Image("later"))
						default:
							want.Tags[team.Image("later")] = later
						}
						if diff := cmp.Diff(want, got); diff != "" {
							t.Errorf("restarted %t: %s", restarted, diff)
						}
						if s.InMemory() {
							t.Errorf("restarted %t: the index is in memory", restarted)
						}
					}
				})
			}
		}
	}
}
