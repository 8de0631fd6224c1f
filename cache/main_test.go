package cache

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
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
	if raceEnabled { // before the flags are parsed, so that one of them comes first
		if err := flag.Set("rapid.checks", "40"); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() == "" {
		useMemory()
	}
	goleak.VerifyTestMain(m)
}

// useMemory makes the tests create their folders in memory if the machine has enough of it
// and TMPDIR is not set: a store syncs each time it is opened, and the tests open about a
// thousand stores. The tests of cmd/larder use a disk.
func useMemory() {
	const shm, enough = "/dev/shm", 1 << 30
	var fs unix.Statfs_t
	if os.Getenv("TMPDIR") == "" && unix.Statfs(shm, &fs) == nil && float64(fs.Bavail)*float64(fs.Bsize) >= enough {
		_ = os.Setenv("TMPDIR", shm) // if this fails, the tests only take longer
	}
}

// openStore opens a store that is closed with the test. The folder is checked then.
func openStore(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if inBubble() {
		opts.IndexWorkers = cmp.Or(opts.IndexWorkers, -1)
	}
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

// inBubble reports whether time is simulated: the clock of testing/synctest begins in the year
// 2000.
func inBubble() bool { return time.Now().Year() < 2020 }

// closeStore closes a store, unless the test has closed it, and checks its folder and its
// account of the folder.
func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if end, err := s.tasks.Begin(); err == nil { // else the test has closed it, and may have changed the folder since
		end()
		loaded(t, s)
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

// checkAccount compares the account of a closed store with its folder: every file must be
// accounted for. If exactly is true, which needs that no step failed, the account must have
// no other items.
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
			errs = append(errs, fmt.Errorf("%s is %+v on disk and %+v in the account", f.Digest(), f.Item, it))
		}
	}
	if n, believed := len(complete)+len(partials), s.items.Len(); n > believed || exactly && n < believed {
		errs = append(errs, fmt.Errorf("%d blobs and partials are in the folder and %d in the account", n, believed))
	}
	if used, unconfirmed := s.space.Account(); used != s.items.Bytes()+s.blobs.Unlinked() || unconfirmed != 0 {
		errs = append(errs, fmt.Errorf("%d bytes are reserved, %d of them unconfirmed, for %d bytes of items",
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
	blob, err := s.Open(t.Context(), o.Digest, Source{Size: int64(len(o.Content)), Fetch: o.Fetch})
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// pull reads all of the origin's blob, and compares it.
func pull(t testing.TB, s *Store, o *filltest.Origin) State {
	t.Helper()
	blob := open(t, s, o)
	defer blob.Close()
	o.Compare(t, blob, 0, int64(len(o.Content)))
	return blob.State
}

// sourceOf is the origin as the source of a repository.
func sourceOf(s *Store, repo Repository, o *filltest.Origin) Source {
	return s.Source(repo, o.Digest, int64(len(o.Content)), o.Fetch)
}

// pullFor is pull for a client of a repository.
func pullFor(t testing.TB, s *Store, repo Repository, o *filltest.Origin) State {
	t.Helper()
	blob, err := s.Open(t.Context(), o.Digest, sourceOf(s, repo, o))
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	o.Compare(t, blob, 0, int64(len(o.Content)))
	return blob.State
}

// settle waits until no fill runs, and fails the test if that takes five minutes.
func settle(t testing.TB, s *Store) {
	t.Helper()
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		for fills := s.Fills(); len(fills) > 0; fills = s.Fills() {
			_ = s.blobs.AwaitFill(context.Background(), fills[0].Digest)
		}
	}()
	select {
	case <-settled:
	case <-time.After(5 * time.Minute):
		t.Fatalf("after five minutes fills still run: %+v", s.Fills())
	}
}

// receive returns the next value of a channel, or the zero value if it is closed. It fails
// the test if that takes a minute.
func receive[T any](t testing.TB, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("waited a minute until %s", what)
		panic("unreachable")
	}
}

// loaded waits until a store knows what is in its folder.
func loaded(t testing.TB, s *Store) {
	t.Helper()
	receive(t, s.blobs.Loaded(), "the folder is loaded")
}

// testSeed returns the seed of a random test, and logs it. LARDER_TEST_SEED sets it, to
// repeat a failure.
func testSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("LARDER_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LARDER_TEST_SEED=%d", seed)
	return seed
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

// openIdle opens a store that does no work in the background: its folder is not loaded.
func openIdle(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	opts.Log = slog.New(slog.DiscardHandler)
	opts = opts.withDefaults()
	folder, err := disk.Open(dir, opts.steps, opts.Log)
	if err != nil {
		t.Fatal(err)
	}
	health := disk.NewHealth(opts.Log)
	index, err := records.Open(folder, health, opts.IndexWorkers, opts.Log)
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
		default: // Close waits until the folder is loaded
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
