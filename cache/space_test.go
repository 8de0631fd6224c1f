package cache

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// TestEverythingInTheFolderCounts compares what is counted beside blobs with what
// du says.
func TestEverythingInTheFolderCounts(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, small)
	for i := range 20 {
		pull(t, s, newOrigin(1000, uint64(i)))
	}
	settle(s)
	closeStore(t, s)
	broken := filepath.Join(dir, "index.broken-1")
	if err := os.Mkdir(broken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "1.vlog"), make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := cachetest.Usage(dir)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := diskUsage(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.layout.overhead()
	if most := all - blobs; err != nil || got > most || got < most-3*block { // of the folder itself, and of those of indexes
		t.Errorf("counted are %d bytes of %d, %v", got, most, err)
	}
}

// The root of a file system has a folder that is root's alone.
func TestWhatIsNotOursStopsNoMeasuring(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, openStore(t, dir, small))
	lost := filepath.Join(dir, "lost+found")
	if err := os.Mkdir(lost, 0); err != nil {
		t.Fatal(err)
	}
	if err := asNobody(t, dir, func() error {
		_, err := layout{dir: dir}.overhead()
		return err
	}); err != nil {
		t.Error(err)
	}
	if err := os.Remove(lost); err != nil {
		t.Fatal(err)
	}
}

// quota is a disk on which no more than so many bytes can be preallocated.
type quota struct {
	most int64

	mu    sync.Mutex // guards what follows
	sizes map[string]int64
}

func (q *quota) around(s step, take func() error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var used int64
	for _, n := range q.sizes {
		used += n
	}
	if s.op == opPreallocate && used+s.size > q.most {
		return unix.EDQUOT
	}
	err := take()
	switch {
	case err != nil:
	case s.op == opPreallocate:
		q.sizes[s.path] = s.size
	case s.op == opRename:
		q.sizes[s.to] = q.sizes[s.path]
		delete(q.sizes, s.path)
	case s.op == opRemove:
		delete(q.sizes, s.path)
	}
	return err
}

func TestCacheKeepsBelowAQuota(t *testing.T) {
	var log journal
	q := &quota{most: ballastSize + blobRoom + 40<<20, sizes: make(map[string]int64)}
	opts := Options{MaxSize: 1 << 30, LowWater: 1, Log: log.log()}
	opts.disk.around = q.around
	s := openStore(t, t.TempDir(), opts)
	for i := range 20 {
		o := newOrigin(8<<20, uint64(i))
		if state := pull(t, s, o); state != Miss {
			t.Errorf("blob %d: %s", i, state)
		}
		settle(s)
		if state := pull(t, s, o); state != Hit {
			t.Errorf("blob %d again: %s", i, state)
		}
	}
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded: %v", err)
	}
	if n := log.lines("level=WARN"); n != 1 || log.lines("a quota does not let") != 1 || log.lines("level=ERROR") > 0 {
		t.Errorf("it was said %d times:\n%s", n, &log.text)
	}
	if used := s.recency.total(); used > 40<<20 {
		t.Errorf("%d bytes are left for the index", q.most-ballastSize-used)
	}
	checkCharges(t, s)
}

// A folder that cannot be read is no reason to forget all others.
func TestFolderThatCannotBeReadIsPassedOver(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	origins := stock(t, s, 8, 1000)
	closed := filepath.Dir(s.layout.blob(origins[3].digest))
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	found := 0
	err := asNobody(t, s.layout.dir, func() error {
		return s.layout.eachBlob("", func(digest.Digest, fs.FileInfo) error { found++; return nil })
	})
	if err == nil || found != 7 {
		t.Errorf("%d of 8 were found: %v", found, err)
	}
	if err := os.Chmod(closed, 0o750); err != nil {
		t.Fatal(err)
	}
}

// asNobody gives dir away, and calls f without what root may do beyond its owner.
func asNobody(t *testing.T, dir string, f func() error) error {
	t.Helper()
	if os.Geteuid() != 0 {
		return f()
	}
	const nobody = 65534
	if _, err := GiveTo(dir, Owner{nobody, nobody}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // of testing itself
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setfsuid(0) }()
	return f()
}
