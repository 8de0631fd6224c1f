package cache

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
)

// TestCacheGoesOnAfterItsFoldersWereRemoved removes parts of the folder while a store has it.
// TestIndexThatWasRemovedIsMadeAgain is about the index.
func TestCacheGoesOnAfterItsFoldersWereRemoved(t *testing.T) {
	for _, part := range []string{"blobs", "blobs/sha256", "partial", "larder.lock", "larder.version", "index.snapshot", "ballast", "all but the index"} {
		t.Run(part, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			s := openStore(t, dir, small)
			kept := stock(t, s, 1, 100_000)[0]
			s.saveSnapshot(t.Context())
			parts := []string{part}
			if part == "all but the index" {
				parts = []string{"blobs", "partial", "larder.lock", "larder.version", "index.snapshot", "ballast"}
			}
			for _, part := range parts {
				if err := os.RemoveAll(filepath.Join(dir, part)); err != nil {
					t.Fatal(err)
				}
			}
			o := filltest.New(3<<20, 7)
			for _, o := range []*filltest.Origin{kept, o} {
				pull(t, s, o)
				settle(t, s)
				if state := pull(t, s, o); state != Hit {
					t.Errorf("%d bytes: %s", len(o.Content), state)
				}
			}
			if strings.HasPrefix(part, "blobs") || part == "all but the index" {
				if _, err := Open(dir, small); err == nil || !strings.Contains(err.Error(), "in use by process") {
					t.Errorf("a second owner was told %v", err)
				}
			}
			if part == "larder.lock" { // nobody noticed, since nothing failed
				if err := os.WriteFile(filepath.Join(dir, part), nil, 0o640); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// indexChanges are what may happen to the folder of an index while a store has it.
var indexChanges = map[string]func(dir string) error{
	"removed":                  os.RemoveAll,
	"emptied":                  func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) },
	"a file in its place":      func(dir string) error { return errors.Join(os.RemoveAll(dir), cachetest.Noise(dir)) },
	"a pipe in its place":      func(dir string) error { return errors.Join(os.RemoveAll(dir), unix.Mkfifo(dir, 0o600)) },
	"a link to nowhere":        func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Symlink("nowhere", dir)) },
	"its list of tables gone":  cachetest.EachFile("MANIFEST", os.Remove),
	"its list of tables noise": cachetest.EachFile("MANIFEST", cachetest.Noise),
	"its logs gone":            cachetest.EachFile("*.mem", os.Remove),
	"its logs shorter":         cachetest.EachFile("*.mem", cachetest.Truncate(100)),
}

func TestIndexThatWasRemovedIsMadeAgain(t *testing.T) {
	for change, damage := range indexChanges {
		t.Run(change, func(t *testing.T) {
			t.Parallel() // some wait for the next check
			var log logBuffer
			dir := t.TempDir()
			opts := small
			opts.Log, opts.Tags = log.log(), freshness
			s := openStore(t, dir, opts)
			loaded(t, s)
			kept := filltest.New(100_000, 1)
			img := newImage("a", kept)
			pullTag(t, s, team, "v1", img, kept)
			settle(t, s)
			s.saveSnapshot(t.Context())
			if err := damage(s.folder.Index()); err != nil {
				t.Fatal(err)
			}
			for i := range 5 { // nobody waits
				o := filltest.New(1000+i, uint64(i))
				pullTag(t, s, team, "v2", newImage("b", o), o)
				if state := pull(t, s, o); state != Hit {
					t.Errorf("pulled: %s", state)
				}
			}
			v3 := records.Tag{Digest: img.Digest, Checked: s.now()}
			eventually(t, "the index takes records again", func() bool {
				err := s.index.PutTag(team, "v3", v3)
				if err != nil && !errors.Is(err, records.ErrDamaged) {
					t.Fatal(err)
				}
				return err == nil
			})
			settle(t, s)
			eventually(t, "the index is rebuilt", func() bool { return log.lines("the index was rebuilt from its snapshot") > 0 })
			for _, restarted := range []bool{false, true} {
				if restarted {
					closeStore(t, s)
					s = openStore(t, dir, opts)
				}
				if s.index.InMemory() {
					t.Errorf("restarted %t: the index is in memory", restarted)
				}
				for _, tag := range []string{"v1", "v3"} {
					if d, _, err := s.Tag(t.Context(), team, tag, dead); err != nil {
						t.Errorf("restarted %t: tag %s: %v, %v", restarted, tag, d, err)
					}
				}
				if state := pull(t, s, kept); state != Hit {
					t.Errorf("restarted %t: a layer: %s", restarted, state)
				}
			}
		})
	}
}
