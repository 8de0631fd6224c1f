package cache

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() == "" {
		useMemory()
	}
	goleak.VerifyTestMain(m)
}

// useMemory has the tests' folders be in memory where the machine has room for
// them, unless TMPDIR says where else: a store syncs each time it is opened, and
// the tests open it a thousand times. Those of cmd/larder are on a disk.
func useMemory() {
	const shm, room = "/dev/shm", 1 << 30
	var fs unix.Statfs_t
	if os.Getenv("TMPDIR") == "" && unix.Statfs(shm, &fs) == nil && int64(fs.Bavail)*fs.Bsize >= room {
		_ = os.Setenv("TMPDIR", shm) // or they take longer
	}
}

// openStore opens a store that lasts as long as the test, and checks the folder
// afterwards.
func openStore(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

// closeStore closes a store and checks what must hold for it and its folder
// whatever happened.
func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if end, err := s.tasks.Begin(); err == nil { // else it was closed by the test, which may have gone on with the folder
		end()
		<-s.blobs.Loaded()
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := checkAccount(s, true); err != nil {
			t.Error(err)
		}
	}
	if err := cachetest.Check(s.folder.Dir()); err != nil {
		t.Error(err)
	}
}

// checkAccount compares what a store that is closed believes to be in its folder
// with what is there: nothing more and, where no step failed, nothing less.
func checkAccount(s *Store, exactly bool) error {
	complete, err := blobs.Complete(context.Background(), s.folder)
	if err != nil {
		return err
	}
	partials, err := blobs.Partials(s.folder)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range append(complete, partials...) {
		if it, ok := s.items.Get(f.Digest()); !ok || it.Partial != f.Partial || it.Bytes < f.Bytes {
			errs = append(errs, fmt.Errorf("%s takes %+v on disk, and is taken for %+v", f.Digest(), f.Item, it))
		}
	}
	if n, believed := len(complete)+len(partials), s.items.Len(); n > believed || exactly && n < believed {
		errs = append(errs, fmt.Errorf("%d blobs and partials are there, and %d are believed to be", n, believed))
	}
	if used, unconfirmed := s.space.Account(); used != s.items.Bytes() || unconfirmed != 0 {
		errs = append(errs, fmt.Errorf("%d bytes are reserved, of which %d are not confirmed, for %d bytes of items",
			used, unconfirmed, s.items.Bytes()))
	}
	return errors.Join(errs...)
}

// files lists the files below dir.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// open opens the origin's blob and closes it with the test.
func open(t testing.TB, s *Store, o *filltest.Origin) *Blob {
	t.Helper()
	blob, err := s.Open(t.Context(), o.Digest, int64(len(o.Content)), o.Fetch)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// pull reads the origin's blob to its end, and compares.
func pull(t testing.TB, s *Store, o *filltest.Origin) State {
	t.Helper()
	blob := open(t, s, o)
	defer blob.Close()
	o.Compare(t, blob, 0, int64(len(o.Content)))
	return blob.State
}

// settle waits until no fill runs.
func settle(s *Store) {
	for fills := s.Fills(); len(fills) > 0; fills = s.Fills() {
		s.blobs.AwaitFill(fills[0].Digest)
	}
}

// eventually waits until ok returns true, and fails the test if that takes a minute.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute until %s", what)
		}
	}
}

// openIdle opens a store that does nothing by itself: it does not look at its folder.
func openIdle(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	opts.Log = slog.New(slog.DiscardHandler)
	opts = opts.withDefaults()
	folder, err := disk.Open(dir, opts.steps, opts.Log)
	if err != nil {
		t.Fatal(err)
	}
	health := disk.NewHealth(opts.Log)
	index, err := records.Open(folder, health, opts.Log)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStore(folder, health, index, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-s.blobs.Loaded():
		default: // Close waits for it
			if err := s.blobs.Load(context.Background(), func() {}); err != nil {
				t.Error(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
