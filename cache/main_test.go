package cache

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

// closeStore closes a store and checks what must hold for its folder whatever
// happened.
func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	checkFolder(t, s.layout.dir)
}

// checkFolder fails the test where a blob does not match its name, or a partial
// is not a pair of files.
func checkFolder(t testing.TB, dir string) {
	t.Helper()
	for _, path := range files(t, filepath.Join(dir, "blobs")) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			continue
		}
		algorithm := digest.Algorithm(filepath.Base(filepath.Dir(filepath.Dir(path))))
		if got := algorithm.FromBytes(raw).Encoded(); got != filepath.Base(path) {
			t.Errorf("blob %s has the digest %s", path, got)
		}
	}
	for _, path := range files(t, filepath.Join(dir, "partial")) {
		twin, isJournal := strings.CutSuffix(path, journalSuffix)
		if !isJournal {
			twin = path + journalSuffix
		}
		if _, err := os.Stat(twin); err != nil {
			t.Errorf("%s was left without its twin", path)
		}
	}
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
func open(t testing.TB, s *Store, o *origin) *Blob {
	t.Helper()
	blob, err := s.Open(t.Context(), o.digest, int64(len(o.content)), o.fetch)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// pull reads the origin's blob to its end, and compares.
func pull(t testing.TB, s *Store, o *origin) State {
	t.Helper()
	blob := open(t, s, o)
	defer blob.Close()
	o.compare(t, blob, 0, int64(len(o.content)))
	return blob.State
}

// settle waits until no fill runs.
func settle(s *Store) {
	for {
		s.mu.Lock()
		var running *fill
		for _, f := range s.filling {
			running = f
		}
		s.mu.Unlock()
		if running == nil {
			return
		}
		<-running.done
	}
}

// compare reads [from,to) and compares it with the origin's content.
func (o *origin) compare(t testing.TB, r io.ReadSeeker, from, to int64) {
	t.Helper()
	if _, err := r.Seek(from, io.SeekStart); err != nil {
		t.Error(err)
		return
	}
	got := make([]byte, to-from)
	if n, err := io.ReadFull(r, got); err != nil {
		t.Errorf("read [%d,%d): %v after %d bytes", from, to, err, n)
		return
	}
	if string(got) != string(o.content[from:to]) {
		t.Errorf("[%d,%d) are not the origin's bytes", from, to)
	}
}
