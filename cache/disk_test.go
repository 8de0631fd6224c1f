package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// spoil makes the folder of the partials unusable, for root too.
func spoil(t *testing.T, s *Store) {
	t.Helper()
	dir := filepath.Join(s.folder.Dir(), "partial")
	if err := errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o750)); err != nil {
			t.Error(err)
		}
	})
}

func TestBlobPassesByADiskThatCannotTakeIt(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	spoil(t, s)
	o := newOrigin(3<<20, 1)
	for range 2 {
		if state := pull(t, s, o); state != Bypass {
			t.Errorf("pulled: %s", state)
		}
	}
}

func TestEmptyBlobNeedsNoDisk(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	spoil(t, s)
	o := newOrigin(0, 1)
	if state := pull(t, s, o); state != Hit || len(o.requests()) > 0 {
		t.Errorf("%s, with %d requests", state, len(o.requests()))
	}
	other := newOrigin(1, 1)
	other.content = nil // a source that has nothing under this digest
	if _, err := s.Open(t.Context(), other.digest, 0, other.fetch); !errors.Is(err, errMismatch) {
		t.Errorf("an empty blob with another digest: %v", err)
	}
}

func TestPassThroughSeeks(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	spoil(t, s)
	o := newOrigin(3<<20, 1)
	blob := open(t, s, o)
	defer blob.Close()
	size := int64(len(o.content))
	for _, r := range [][2]int64{{500, 1500}, {size - 1, size}, {0, 1}, {2 << 20, size}, {size - 1, size}, {0, size}} {
		o.compare(t, blob, r[0], r[1])
	}
	if n, err := blob.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	if _, err := blob.Seek(-1, io.SeekStart); err == nil {
		t.Error("a seek before the beginning was taken")
	}
}

func TestPassThroughKeepsTheLastByteOfContentThatDoesNotVerify(t *testing.T) {
	for name, from := range map[string]int64{"from the beginning": 0, "from the middle": 2 << 20, "only the last byte": 3<<20 - 1} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, t.TempDir(), small)
			spoil(t, s)
			o := newOrigin(3<<20, 1)
			o.plan = func(int, Range) act { return act{flip: 9} }
			blob := open(t, s, o)
			defer blob.Close()
			if _, err := blob.Seek(from, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(blob)
			if !errors.Is(err, errMismatch) || !errors.Is(blob.Err(), errMismatch) {
				t.Errorf("read ended with %v", err)
			}
			if int64(len(got)) >= int64(len(o.content))-from {
				t.Error("the last byte was given out")
			}
		})
	}
}

func TestReadersGoOnWhenAWriteFails(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := newOrigin(3<<20, 1)
	hold := make(chan struct{})
	o.plan = func(int, Range) act {
		return act{gate: func(off int64) {
			if off >= chunkSize {
				<-hold
			}
		}}
	}
	blob := open(t, s, o)
	defer blob.Close()
	o.compare(t, blob, 0, chunkSize)
	s.mu.Lock()
	f := s.filling[o.digest]
	s.mu.Unlock()
	if err := f.part.data.Close(); err != nil { // from here on every write fails
		t.Fatal(err)
	}
	close(hold)
	o.compare(t, blob, chunkSize, int64(len(o.content)))
	settle(s)
	if err := blob.Err(); err != nil {
		t.Errorf("the reader saw %v", err)
	}
	if n, _ := o.total(); n > int64(len(o.content))+2*small.Segment*int64(small.Connections) {
		t.Errorf("%d bytes were sent for a blob of %d", n, len(o.content))
	}
	if state := pull(t, s, o); state != Miss {
		t.Errorf("pulled again: %s", state)
	}
}

// fullDisk mounts a small file system and leaves free bytes of it.
func fullDisk(t *testing.T, size, free int64) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("mounting a file system of its own takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	hog, err := os.Create(filepath.Join(dir, "hog"))
	if err != nil {
		t.Fatal(err)
	}
	defer hog.Close()
	if err := unix.Fallocate(int(hog.Fd()), 0, 0, size-free); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFullDiskIsPassedBy(t *testing.T) {
	disk := fullDisk(t, 200<<20, 110<<20)
	s := openStore(t, filepath.Join(disk, "cache"), small)
	kept, o := newOrigin(1<<20, 1), newOrigin(20<<20, 2)
	pull(t, s, kept)
	settle(s)
	if state := pull(t, s, o); state != Bypass {
		t.Errorf("a blob that does not fit: %s", state)
	}
	img := newImage("full", o)
	if err := os.Truncate(filepath.Join(disk, "hog"), 0); err != nil {
		t.Fatal(err)
	}
	settle(s)
	if state := pull(t, s, o); state != Miss {
		t.Errorf("with room again: %s", state)
	}
	settle(s)

	fillUp(t, disk)
	if state := pull(t, s, kept); state != Hit {
		t.Errorf("on a disk without a free byte: %s", state)
	}
	if _, _, err := s.Manifest(t.Context(), Repository{Upstream: "r", Name: "n"}, img.Digest, img.ask); err != nil {
		t.Errorf("a manifest on a disk without a free byte: %v", err)
	}
	yes := func(context.Context) (int64, error) { return 1, nil }
	if _, err := s.Holds(t.Context(), team, newOrigin(1, 1).digest, yes); err != nil {
		t.Errorf("a membership on a disk without a free byte: %v", err)
	}
}

func TestStoreOpensOnAFullDisk(t *testing.T) {
	disk := fullDisk(t, 200<<20, 110<<20)
	dir := filepath.Join(disk, "cache")
	repo := Repository{Upstream: "r", Name: "n"}
	o := newOrigin(1<<20, 1)
	img := newImage("v1", o)
	s := openStore(t, dir, Options{Tags: Freshness{StaleIfError: 1 << 40}})
	if _, _, err := s.Tag(t.Context(), repo, "v1", img.ask); err != nil {
		t.Fatal(err)
	}
	pull(t, s, o)
	closeStore(t, s)
	fillUp(t, disk)
	s = openStore(t, dir, Options{Tags: Freshness{StaleIfError: 1 << 40}})
	if state := pull(t, s, o); state != Hit {
		t.Errorf("a blob: %s", state)
	}
	got, state, err := s.Tag(t.Context(), repo, "v1", dead)
	if err != nil || got.Digest != img.Digest {
		t.Errorf("a tag: %s, %v", state, err)
	}
}

// fillUp leaves no byte free.
func fillUp(t *testing.T, disk string) {
	t.Helper()
	f, err := os.Create(filepath.Join(disk, "more"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestDiskThatFillsUpDuringPullsFailsNone has others take the last byte of the
// disk again and again, and give it back.
func TestDiskThatFillsUpDuringPullsFailsNone(t *testing.T) {
	disk := fullDisk(t, 200<<20, 199<<20)
	s := openStore(t, filepath.Join(disk, "cache"), small)
	var all []*origin
	for i := range 60 { // so that there is always something to fetch
		all = append(all, newOrigin(1<<20+i, uint64(i)))
	}
	pulls, done := make(chan struct{}), make(chan struct{})
	var clients sync.WaitGroup
	for c := range 4 {
		random := rand.New(rand.NewPCG(1, uint64(c)))
		clients.Go(func() {
			for {
				pull(t, s, all[random.IntN(len(all))])
				select {
				case pulls <- struct{}{}:
				case <-done:
					return
				}
			}
		})
	}
	await := func(n int) {
		for range n {
			<-pulls
		}
	}
	for range 5 {
		await(8)
		fillUp(t, disk)
		await(8)
		if err := os.Remove(filepath.Join(disk, "more")); err != nil {
			t.Error(err)
		}
	}
	close(done)
	clients.Wait()
	settle(s)
	o := newOrigin(2<<20, 1000)
	for _, want := range []State{Miss, Hit} {
		if state := pull(t, s, o); state != want {
			t.Errorf("with room again: %s, want %s", state, want)
		}
		settle(s)
	}
}
