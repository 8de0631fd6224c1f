package cache

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/recency"
	"golang.org/x/sys/unix"
)

// failing makes the selected steps fail: before they take effect or, with late, after.
func failing(late bool, which func(disk.Step) bool) Options {
	opts := small
	opts.Log = slog.New(slog.DiscardHandler)
	opts.steps.Around = func(s disk.Step, take func() error) error {
		if !which(s) {
			return take()
		}
		if late {
			if err := take(); err != nil {
				return err
			}
		}
		return unix.EIO
	}
	return opts
}

// closeFaulty closes a store some of whose steps failed. Files that these left must be in
// the account, must not be blobs, and must be removed by the next start.
func closeFaulty(t *testing.T, s *Store) {
	t.Helper()
	loaded(t, s)
	err := s.Close()
	err = errors.Join(err, checkAccount(s, false), cachetest.CheckBlobs(s.folder.Dir()))
	if err != nil {
		t.Error(err)
	}
	opts := s.opts
	opts.steps = disk.Steps{}
	closeStore(t, openStore(t, s.folder.Dir(), opts))
}

func TestFailedStepsOfAFillLeaveTheFolderConsistent(t *testing.T) {
	for name, which := range map[string]func(disk.Step) bool{
		"file not synced":       func(s disk.Step) bool { return s.Op == disk.OpSync },
		"folder not created":    func(s disk.Step) bool { return s.Op == disk.OpMkdir && len(filepath.Base(s.Path)) == 2 },
		"not renamed":           func(s disk.Step) bool { return s.Op == disk.OpRename },
		"folder not synced":     func(s disk.Step) bool { return s.Op == disk.OpSyncDir && len(filepath.Base(s.Path)) == 2 },
		"journal not removed":   func(s disk.Step) bool { return s.Op == disk.OpRemove && strings.HasSuffix(s.Path, ".journal") },
		"partial not created":   func(s disk.Step) bool { return s.Op == disk.OpCreate && strings.Contains(s.Path, "sha256-") },
		"partial not allocated": func(s disk.Step) bool { return s.Op == disk.OpPreallocate && strings.Contains(s.Path, "sha256-") },
		"bytes not written":     func(s disk.Step) bool { return s.Op == disk.OpWrite && s.Off > 0 },
		"journal not written":   func(s disk.Step) bool { return s.Op == disk.OpWrite && strings.HasSuffix(s.Path, ".journal") },
		"neither synced nor removed": func(s disk.Step) bool {
			return s.Op == disk.OpSyncDir && len(filepath.Base(s.Path)) == 2 || s.Op == disk.OpRemove
		},
	} {
		for _, late := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " although the step took effect"}[late], func(t *testing.T) {
				s, err := Open(t.TempDir(), failing(late, which))
				if err != nil {
					t.Fatal(err)
				}
				o, img := filltest.New(3<<20, 1), newImage("a")
				pull(t, s, o)
				if _, _, err := s.Manifest(t.Context(), team, img.Digest, img.ask); err != nil {
					t.Error(err)
				}
				settle(t, s)
				pull(t, s, o)
				settle(t, s)
				closeFaulty(t, s)
			})
		}
	}
}

// An eviction runs when the file of the manifest is in place and its records are not.
func TestManifestIsNotEvictedWhileItIsStored(t *testing.T) {
	img := newImage("a")
	var s *Store
	opts := small
	opts.steps.Around = func(st disk.Step, take func() error) error {
		err := take()
		if st.Op == disk.OpRename && st.To == s.folder.Blob(img.Digest) {
			s.items.Add(img.Digest, recency.Item{}, s.opts.Now()) // as if there were an older file
			if err := evictOne(s, img.Digest, blobs.ReasonUnused); err != nil {
				t.Error(err)
			}
		}
		return err
	}
	s = openStore(t, t.TempDir(), opts)
	if _, _, err := s.Manifest(t.Context(), team, img.Digest, img.ask); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(img.Digest); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Manifest(t.Context(), team, img.Digest, dead); err != nil {
		t.Error(err)
	}
}

// manifestAsBlob returns the origin of a manifest that is requested as a blob.
func manifestAsBlob(img *image) *filltest.Origin {
	o := filltest.New(len(img.Raw), 1)
	o.Content, o.Digest = img.Raw, img.Digest
	return o
}

func TestManifestReplacesItsPartial(t *testing.T) {
	img := newImage("a")
	o := manifestAsBlob(img)
	dir := t.TempDir()
	closeStore(t, openStore(t, dir, small))
	writePartial(t, disk.At(dir), o)
	s := openStore(t, dir, small)
	if _, _, err := s.Manifest(t.Context(), team, img.Digest, img.ask); err != nil {
		t.Fatal(err)
	}
	if left := files(t, filepath.Join(dir, "partial")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// writePartial leaves a partial of the origin's blob, as a closed store does.
func writePartial(t *testing.T, l *disk.Folder, o *filltest.Origin) {
	t.Helper()
	part, err := fill.CreatePartial(l, o.Digest, int64(len(o.Content)))
	if err == nil {
		err = part.Keep()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestManifestIsServedWhileAFillFetchesItAsABlob(t *testing.T) {
	img := newImage("a")
	o := manifestAsBlob(img)
	release := make(chan struct{})
	o.Plan = func(int, Range) filltest.Act { return filltest.Act{Gate: func(int64) { <-release }} }
	var log logBuffer
	opts := small
	opts.Log = log.log()
	dir := t.TempDir()
	s := openStore(t, dir, opts)
	blob := open(t, s, o)
	defer blob.Close()
	if _, _, err := s.Manifest(t.Context(), team, img.Digest, img.ask); err != nil {
		t.Error(err)
	}
	close(release)
	o.Compare(t, blob, 0, int64(len(o.Content)))
	if err := blob.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "the manifest is stored after the fill", func() bool { _, known := s.index.Children(img.Digest); return known })
	closeStore(t, s)
	s = openStore(t, dir, opts)
	if _, state, err := s.Manifest(t.Context(), team, img.Digest, dead); err != nil || state != Hit {
		t.Errorf("afterwards: %s, %v", state, err)
	}
	log.wantLogged(t, 0, 0)
}

func TestStoreOpensIfItCannotRemoveATemporaryFile(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, openStore(t, dir, small))
	junk := filepath.Join(dir, "partial", "put-"+"1")
	if err := os.WriteFile(junk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, failing(false, func(s disk.Step) bool { return s.Path == junk }))
	if err != nil {
		t.Fatal(err)
	}
	o := filltest.New(1000, 1)
	pull(t, s, o)
	settle(t, s)
	closeFaulty(t, s)
}

func TestStartUpRemovesThePartialOfACompleteBlob(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, small)
	o := filltest.New(1000, 1)
	pull(t, s, o)
	settle(t, s)
	closeStore(t, s)
	writePartial(t, s.folder, o)
	s = openStore(t, dir, small)
	if state := pull(t, s, o); state != Hit {
		t.Errorf("pulled: %s", state)
	}
}

// The scan at start-up misses the partial if its folder cannot be read.
func TestResumedPartialMissedByTheScanIsCounted(t *testing.T) {
	dir := t.TempDir()
	o := filltest.New(9<<20, 1)
	interrupt(t, dir, o)
	s := openStore(t, dir, resumable)
	loaded(t, s)
	it, _ := s.items.Remove(o.Digest)
	s.space.Release(it.Bytes)
	pull(t, s, o)
	settle(t, s)
	checkCharges(t, s)
}

func TestReserveEndsWithItsContext(t *testing.T) {
	s := openStore(t, t.TempDir(), bounded)
	pull(t, s, filltest.New(4<<20, 1))
	settle(t, s)
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	err := s.blobs.WithoutEvictions(func() error { return s.blobs.ReserveBytes(ctx, 6<<20) })
	if !errors.Is(err, gone) {
		t.Errorf("reserve: %v", err)
	}
}
