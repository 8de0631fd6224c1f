package cache

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/fill/filltest"
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
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if !closed { // by the test, which may have gone on with the folder
		<-s.scanned
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
	blobs, err := foundBlobs(s.folder, func() error { return nil })
	if err != nil {
		return err
	}
	partials, err := foundPartials(s.folder)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range append(blobs, partials...) {
		if it, ok := s.recency.Get(f.Digest()); !ok || it.Partial != f.Partial || it.Bytes < f.Bytes {
			errs = append(errs, fmt.Errorf("%s takes %+v on disk, and is taken for %+v", f.Digest(), f.Item, it))
		}
	}
	if n, believed := len(blobs)+len(partials), s.recency.Len(); n > believed || exactly && n < believed {
		errs = append(errs, fmt.Errorf("%d blobs and partials are there, and %d are believed to be", n, believed))
	}
	if used, unconfirmed := s.space.Account(); used != s.recency.Bytes() || unconfirmed != 0 {
		errs = append(errs, fmt.Errorf("%d bytes are reserved, of which %d are not confirmed, for %d bytes of items",
			used, unconfirmed, s.recency.Bytes()))
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
	for {
		s.mu.Lock()
		var running *fill.Fill
		for _, f := range s.filling {
			running = f
		}
		s.mu.Unlock()
		if running == nil {
			return
		}
		<-running.Done()
	}
}
