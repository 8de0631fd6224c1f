package cache

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
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

// failing has steps fail, before they happen or, with late, after they did.
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

// closeFaulty closes a store that steps failed of. What they left is known and
// no blob, and gone after the next start.
func closeFaulty(t *testing.T, s *Store) {
	t.Helper()
	<-s.blobs.Loaded()
	err := s.Close()
	err = errors.Join(err, checkAccount(s, false), cachetest.CheckBlobs(s.folder.Dir()))
	if err != nil {
		t.Error(err)
	}
	opts := s.opts
	opts.steps = disk.Steps{}
	closeStore(t, openStore(t, s.folder.Dir(), opts))
}

func TestBlobThatCannotBePublishedIsLeftNowhere(t *testing.T) {
	for name, which := range map[string]func(disk.Step) bool{
		"its file is not synced":       func(s disk.Step) bool { return s.Op == disk.OpSync },
		"its folder is not made":       func(s disk.Step) bool { return s.Op == disk.OpMkdir && len(filepath.Base(s.Path)) == 2 },
		"it is not renamed":            func(s disk.Step) bool { return s.Op == disk.OpRename },
		"its folder is not synced":     func(s disk.Step) bool { return s.Op == disk.OpSyncDir && len(filepath.Base(s.Path)) == 2 },
		"its journal is not removed":   func(s disk.Step) bool { return s.Op == disk.OpRemove && strings.HasSuffix(s.Path, ".journal") },
		"its partial is not made":      func(s disk.Step) bool { return s.Op == disk.OpCreate && strings.Contains(s.Path, "sha256-") },
		"its partial is not allocated": func(s disk.Step) bool { return s.Op == disk.OpPreallocate && strings.Contains(s.Path, "sha256-") },
		"its bytes are not written":    func(s disk.Step) bool { return s.Op == disk.OpWrite && s.Off > 0 },
		"its journal is not written":   func(s disk.Step) bool { return s.Op == disk.OpWrite && strings.HasSuffix(s.Path, ".journal") },
		"it is neither synced nor taken": func(s disk.Step) bool {
			return s.Op == disk.OpSyncDir && len(filepath.Base(s.Path)) == 2 || s.Op == disk.OpRemove
		},
	} {
		for _, late := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", it says"}[late], func(t *testing.T) {
				s, err := Open(t.TempDir(), failing(late, which))
				if err != nil {
					t.Fatal(err)
				}
				o, img := filltest.New(3<<20, 1), newImage("a")
				pull(t, s, o)
				if _, _, err := s.Manifest(t.Context(), team, img.Digest, img.ask); err != nil {
					t.Error(err)
				}
				settle(s)
				pull(t, s, o)
				settle(s)
				closeFaulty(t, s)
			})
		}
	}
}

// TestManifestIsNotEvictedWhileItIsPut has an eviction come by when the file is
// in its place and the records are not.
func TestManifestIsNotEvictedWhileItIsPut(t *testing.T) {
	img := newImage("a")
	var s *Store
	opts := small
	opts.steps.Around = func(st disk.Step, take func() error) error {
		err := take()
		if st.Op == disk.OpRename && st.To == s.folder.Blob(img.Digest) {
			s.items.Add(img.Digest, recency.Item{}, s.opts.Now()) // as of an older file
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

// manifestAsBlob is what a client gets that asks for a manifest among the blobs.
func manifestAsBlob(img *image) *filltest.Origin {
	o := filltest.New(len(img.Raw), 1)
	o.Content, o.Digest = img.Raw, img.Digest
	return o
}

func TestManifestTakesThePlaceOfItsPartial(t *testing.T) {
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

// writePartial leaves a partial of the origin's blob, as a store that was closed
// does.
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

func TestManifestIsServedWhileAFillBringsItAsABlob(t *testing.T) {
	img := newImage("a")
	o := manifestAsBlob(img)
	hold := make(chan struct{})
	o.Plan = func(int, Range) filltest.Act { return filltest.Act{Gate: func(int64) { <-hold }} }
	var log journal
	opts := small
	opts.Log = log.log()
	dir := t.TempDir()
	s := openStore(t, dir, opts)
	blob := open(t, s, o)
	defer blob.Close()
	if _, _, err := s.Manifest(t.Context(), team, img.Digest, img.ask); err != nil {
		t.Error(err)
	}
	close(hold)
	o.Compare(t, blob, 0, int64(len(o.Content)))
	for known := false; !known; _, known = s.index.Children(img.Digest) { // once the fill is over
		runtime.Gosched()
	}
	closeStore(t, s)
	s = openStore(t, dir, opts)
	if _, state, err := s.Manifest(t.Context(), team, img.Digest, dead); err != nil || state != Hit {
		t.Errorf("afterwards: %s, %v", state, err)
	}
	log.said(t, 0, 0)
}

func TestWhatStartUpCannotRemoveStopsNoStart(t *testing.T) {
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
	settle(s)
	closeFaulty(t, s)
}

func TestStartUpRemovesThePartialOfACompleteBlob(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, small)
	o := filltest.New(1000, 1)
	pull(t, s, o)
	settle(s)
	closeStore(t, s)
	writePartial(t, s.folder, o)
	s = openStore(t, dir, small)
	if state := pull(t, s, o); state != Hit {
		t.Errorf("pulled: %s", state)
	}
}

// TestResumedPartialThatTheScanDidNotSeeIsCharged is about a folder that could
// not be read at start-up.
func TestResumedPartialThatTheScanDidNotSeeIsCharged(t *testing.T) {
	dir := t.TempDir()
	o := filltest.New(9<<20, 1)
	interrupt(t, dir, o)
	s := openStore(t, dir, resumable)
	<-s.blobs.Loaded()
	it, _ := s.items.Remove(o.Digest)
	s.space.Release(it.Bytes)
	pull(t, s, o)
	settle(s)
	checkCharges(t, s)
}

func TestReserveDoesNotWaitLongerThanItsCaller(t *testing.T) {
	s := openStore(t, t.TempDir(), bounded)
	pull(t, s, filltest.New(4<<20, 1))
	settle(s)
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	err := s.blobs.WithoutEvictions(func() error { return s.blobs.ReserveBytes(ctx, 6<<20) })
	if !errors.Is(err, gone) {
		t.Errorf("reserve: %v", err)
	}
}
