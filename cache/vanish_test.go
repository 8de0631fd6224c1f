package cache

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
)

// TestCacheGoesOnAfterItsFoldersWereRemoved removes parts of the folder while a store has it.
// TestIndexThatWasRemovedHoldsNobody is about the index.
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

func TestIndexThatWasRemovedHoldsNobody(t *testing.T) {
	var log logBuffer
	dir := t.TempDir()
	opts := small
	opts.Log, opts.Tags = log.log(), freshness
	s := openStore(t, dir, opts)
	kept := filltest.New(100_000, 1)
	pullTag(t, s, team, "v1", newImage("a", kept), kept)
	s.saveSnapshot(t.Context())
	elsewhere := s.folder.Index() + ".broken-elsewhere" // so that Badger can end
	if err := os.Rename(s.folder.Index(), elsewhere); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		o := filltest.New(1000+i, uint64(i))
		pullTag(t, s, team, "v2", newImage("b", o), o)
		if state := pull(t, s, o); state != Hit {
			t.Errorf("pulled: %s", state)
		}
	}
	v3 := records.Tag{Digest: kept.Digest, Checked: s.now()}
	if err := s.index.PutTag(team, "v3", v3); !errors.Is(err, records.ErrVanished) {
		t.Errorf("recorded: %v", err)
	}
	if _, _, err := s.Tag(t.Context(), team, "v1", dead); err != nil {
		t.Errorf("a tag: %v", err)
	}
	if n := log.lines("level=ERROR"); n != 1 || log.lines("the files of the index were removed") != 1 || log.lines("level=WARN") > 0 {
		t.Errorf("%d errors:\n%s", n, &log.text)
	}
	if err := os.Rename(elsewhere, s.folder.Index()); err != nil {
		t.Fatal(err)
	}
	if err := s.index.PutTag(team, "v3", v3); err != nil {
		t.Errorf("recorded, with the index again: %v", err)
	}
}
