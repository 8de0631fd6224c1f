package cache

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/fill/filltest"
)

// withoutFiles calls fn while this process cannot open a file.
func withoutFiles(t *testing.T, fn func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	set := func(limit unix.Rlimit) {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}
	set(unix.Rlimit{Cur: 0, Max: before.Max})
	defer set(before)
	fn()
}

func TestImportDoesNotTakeABlobThatItCannotReadForVerified(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	layer := filltest.New(MaxManifest+1, 1)
	pull(t, s, layer)
	settle(t, s)
	damage(t, s, layer.Digest)
	p := newParcel(layer.Content)
	i := startImport(t, s)
	withoutFiles(t, func() {
		if _, err := i.Reserve(t.Context(), p.blobs, nil); !errors.Is(err, unix.EMFILE) {
			t.Errorf("reserved without reading what is here: %v", err)
		}
	})
	i = startImport(t, s)
	space, err := i.Reserve(t.Context(), p.blobs, nil)
	if err != nil || len(space.Lacking) != 1 {
		t.Errorf("the damaged blob counts as here: %+v, %v", space, err)
	}
}

// The blob comes between Reserve and Put, and is damaged by then.
func TestPutHashesWhatHasComeSinceReserve(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	layer := filltest.New(MaxManifest+1, 1)
	p := newParcel(layer.Content)
	i := startImport(t, s)
	if _, err := i.Reserve(t.Context(), p.blobs, nil); err != nil {
		t.Fatal(err)
	}
	pull(t, s, layer)
	settle(t, s)
	damage(t, s, layer.Digest)
	if err := i.Put(t.Context(), p.blobs[0], bytes.NewReader(layer.Content)); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(s.folder.Blob(layer.Digest)); err != nil || !bytes.Equal(content, layer.Content) {
		t.Errorf("the damaged blob is still here, %v", err)
	}
}
