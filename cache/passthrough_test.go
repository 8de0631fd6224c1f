package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/deploy/deploytest"
)

// withoutPartials has every file below partial/ fail to be made.
func withoutPartials(opts Options) Options {
	opts.steps.Around = func(s disk.Step, take func() error) error {
		if s.Op == disk.OpCreate && filepath.Base(filepath.Dir(s.Path)) == "partial" {
			return &fs.PathError{Op: "open", Path: s.Path, Err: unix.ENOTDIR}
		}
		return take()
	}
	return opts
}

func TestBlobIsPassedThroughIfTheDiskDoesNotAcceptIt(t *testing.T) {
	s := openStore(t, t.TempDir(), withoutPartials(small))
	o := filltest.New(3<<20, 1)
	for range 2 {
		if state := pull(t, s, o); state != Bypass {
			t.Errorf("pulled: %s", state)
		}
	}
}

func TestEmptyBlobNeedsNoDisk(t *testing.T) {
	s := openStore(t, t.TempDir(), withoutPartials(small))
	o := filltest.New(0, 1)
	if state := pull(t, s, o); state != Hit || len(o.Requests()) > 0 {
		t.Errorf("%s, with %d requests", state, len(o.Requests()))
	}
	other := filltest.New(1, 1)
	other.Content = nil // a source whose content does not match the digest
	if _, err := s.Open(t.Context(), other.Digest, Source{Fetch: other.Fetch}); !errors.Is(err, fill.ErrMismatch) {
		t.Errorf("an empty blob with another digest: %v", err)
	}
}

func TestPassThroughSeeks(t *testing.T) {
	s := openStore(t, t.TempDir(), withoutPartials(small))
	o := filltest.New(3<<20, 1)
	blob := open(t, s, o)
	defer blob.Close()
	size := int64(len(o.Content))
	for _, r := range [][2]int64{{500, 1500}, {size - 1, size}, {0, 1}, {2 << 20, size}, {size - 1, size}, {0, size}} {
		o.Compare(t, blob, r[0], r[1])
	}
	if n, err := blob.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read at the end: %d, %v", n, err)
	}
	if _, err := blob.Seek(-1, io.SeekStart); err == nil {
		t.Error("a seek before the beginning succeeded")
	}
}

func TestPassThroughWithholdsTheLastByteOfMismatchingContent(t *testing.T) {
	for name, lies := range map[string]int64{"in the first bit": 1, "in the last bit": 3 << 23} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, t.TempDir(), withoutPartials(small))
			o := filltest.New(3<<20, 1)
			o.Plan = func(int, Range) filltest.Act { return filltest.Act{Flip: lies} }
			blob := open(t, s, o)
			defer blob.Close()
			got, err := io.ReadAll(blob)
			if !errors.Is(err, fill.ErrMismatch) || !errors.Is(blob.Err(), fill.ErrMismatch) {
				t.Errorf("read ended with %v", err)
			}
			if len(got) >= len(o.Content) {
				t.Error("the client got the last byte")
			}
		})
	}
}

// tooSmall has a cache into which a blob of 3 MiB does not fit, with room for the index.
func tooSmall(opts Options) Options {
	opts.MaxSize = disk.OverheadSlack + 2<<20
	return opts
}

// A range that is passed through costs the upstream that range: the blob is neither fetched to its
// end nor twice, and nothing is asked for beside it.
func TestRangesOfABlobThatDoesNotFitCostNoMoreThanTheirBytes(t *testing.T) {
	s := openStore(t, t.TempDir(), tooSmall(small))
	<-s.blobs.Loaded()
	o := filltest.New(3<<20, 1)
	source := o.Source()
	size := int64(len(o.Content))
	source.Size = size
	const chunk = 256 << 10
	for off := int64(0); off < size; off += chunk {
		blob, err := s.Open(t.Context(), o.Digest, source)
		if err != nil {
			t.Fatal(err)
		}
		if blob.State != Bypass {
			t.Errorf("the chunk at %d: %s", off, blob.State)
		}
		if err := blob.Begin(off, chunk); err != nil {
			t.Fatal(err)
		}
		o.Compare(t, blob, off, off+chunk)
		if err := blob.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := len(o.Requests()); n != int(size/chunk) {
		t.Errorf("%d requests for %d chunks", n, size/chunk)
	}
	if n, most := o.Total(); n != size || most != 1 {
		t.Errorf("%d bytes of %d were sent, one of them %d times", n, size, most)
	}
}

// A client whose range is not known gets little at first, and more as it reads on.
func TestPassThroughAsksForMoreAsTheClientReadsOn(t *testing.T) {
	s := openStore(t, t.TempDir(), tooSmall(small))
	<-s.blobs.Loaded()
	o := filltest.New(3<<20, 1)
	source := o.Source()
	source.Size = int64(len(o.Content))
	blob, err := s.Open(t.Context(), o.Digest, source)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	o.Compare(t, blob, 1<<20, 1<<20+1000)
	o.Compare(t, blob, 0, int64(len(o.Content)))
	var asked []int64
	for _, r := range o.Requests() {
		asked = append(asked, r.Len)
	}
	if want := []int64{256 << 10, 256 << 10, 512 << 10, 1 << 20, 3<<20 - 1792<<10}; !slices.Equal(asked, want) {
		t.Errorf("asked for %d bytes, want %d", asked, want)
	}
}

func TestSourceThatRefusesAPassedBlobIsAnErrorBeforeItsFirstByte(t *testing.T) {
	s := openStore(t, t.TempDir(), tooSmall(small))
	<-s.blobs.Loaded()
	o := filltest.New(3<<20, 1)
	o.Plan = func(int, Range) filltest.Act { return filltest.Act{Err: fs.ErrNotExist} }
	source := o.Source()
	source.Size = int64(len(o.Content))
	blob, err := s.Open(t.Context(), o.Digest, source)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if err := blob.Begin(1<<20, 1000); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Begin: %v", err)
	}
}

func TestReadersContinueAfterAFailedWrite(t *testing.T) {
	var fails atomic.Bool
	opts := small
	opts.steps.Around = func(s disk.Step, take func() error) error {
		if s.Op == disk.OpWrite && fails.Load() {
			return errDisk
		}
		return take()
	}
	s := openStore(t, t.TempDir(), opts)
	o := filltest.New(3<<20, 1)
	release := make(chan struct{})
	o.Plan = func(int, Range) filltest.Act {
		return filltest.Act{Gate: func(off int64) {
			if off >= disk.ChunkSize {
				<-release
			}
		}}
	}
	blob := open(t, s, o)
	defer blob.Close()
	o.Compare(t, blob, 0, disk.ChunkSize)
	fails.Store(true)
	close(release)
	o.Compare(t, blob, disk.ChunkSize, int64(len(o.Content)))
	settle(t, s)
	if err := blob.Err(); err != nil {
		t.Errorf("the reader saw %v", err)
	}
	if n, _ := o.Total(); n > int64(len(o.Content))+2*small.Segment*int64(small.Connections) {
		t.Errorf("%d bytes were sent for a blob of %d", n, len(o.Content))
	}
	fails.Store(false)
	if state := pull(t, s, o); state != Miss {
		t.Errorf("pulled again: %s", state)
	}
}

// fullDisk mounts a file system of size bytes of which free bytes are free.
func fullDisk(t *testing.T, size, free int64) string {
	t.Helper()
	dir := deploytest.Tmpfs(t, fmt.Sprintf("size=%d", size))
	hog, err := os.Create(filepath.Join(dir, "hog"))
	if err != nil {
		t.Fatal(err)
	}
	defer hog.Close()
	if _, err := hog.Write(make([]byte, size-free)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBlobsArePassedThroughOnAFullDisk(t *testing.T) {
	disk := fullDisk(t, 200<<20, 110<<20)
	s := openStore(t, filepath.Join(disk, "cache"), small)
	kept, o := filltest.New(1<<20, 1), filltest.New(20<<20, 2)
	pull(t, s, kept)
	settle(t, s)
	if state := pull(t, s, o); state != Bypass {
		t.Errorf("a blob that does not fit: %s", state)
	}
	img := newImage("full", o)
	if err := os.Truncate(filepath.Join(disk, "hog"), 0); err != nil {
		t.Fatal(err)
	}
	settle(t, s)
	if state := pull(t, s, o); state != Miss {
		t.Errorf("with free space again: %s", state)
	}
	settle(t, s)

	fillUp(t, disk)
	if state := pull(t, s, kept); state != Hit {
		t.Errorf("on a disk without a free byte: %s", state)
	}
	if _, _, err := s.Manifest(t.Context(), Repository{Upstream: "r", Name: "n"}, img.Digest, img.ask); err != nil {
		t.Errorf("a manifest on a disk without a free byte: %v", err)
	}
	yes := func(context.Context) (int64, error) { return 1, nil }
	if _, err := s.Holds(t.Context(), team, filltest.New(1, 1).Digest, yes); err != nil {
		t.Errorf("a membership on a disk without a free byte: %v", err)
	}
}

func TestStoreOpensOnAFullDisk(t *testing.T) {
	disk := fullDisk(t, 200<<20, 110<<20)
	dir := filepath.Join(disk, "cache")
	repo := Repository{Upstream: "r", Name: "n"}
	o := filltest.New(1<<20, 1)
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

// fillUp uses all free space of a disk.
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

// Another process takes all free space of the disk again and again, and frees it.
func TestNoPullFailsWhileTheDiskFillsUp(t *testing.T) {
	disk := fullDisk(t, 200<<20, 199<<20)
	s := openStore(t, filepath.Join(disk, "cache"), small)
	var all []*filltest.Origin
	for i := range 60 { // so that there is always a blob to fetch
		all = append(all, filltest.New(1<<20+i, uint64(i)))
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
			receive(t, pulls, "a pull ends")
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
	settle(t, s)
	o := filltest.New(2<<20, 1000)
	for _, want := range []State{Miss, Hit} {
		if state := pull(t, s, o); state != want {
			t.Errorf("with free space again: %s, want %s", state, want)
		}
		settle(t, s)
	}
}

// fewInodes mounts a file system that has so many inodes.
func fewInodes(t *testing.T, n int) string {
	t.Helper()
	return deploytest.Tmpfs(t, fmt.Sprintf("size=512m,nr_inodes=%d", n))
}

// takeInodes makes empty files until only left inodes are free.
func takeInodes(t *testing.T, disk string, left uint64) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(disk, "others"), 0o750); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		var st unix.Statfs_t
		if err := unix.Statfs(disk, &st); err != nil {
			t.Fatal(err)
		}
		if st.Ffree <= left {
			return
		}
		f, err := os.CreateTemp(filepath.Join(disk, "others"), "")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

func TestBlobsAreEvictedForInodes(t *testing.T) {
	disk := fewInodes(t, 600)
	var log logBuffer
	s := openStore(t, filepath.Join(disk, "cache"), Options{Segment: small.Segment, Log: log.log()})
	var last *filltest.Origin
	for i := range 700 {
		last = filltest.New(1000+i, uint64(i))
		if state := pull(t, s, last); state != Miss {
			t.Fatalf("blob %d: %s", i, state)
		}
		settle(t, s)
	}
	if state := pull(t, s, last); state != Hit {
		t.Errorf("the last blob again: %s", state)
	}
	if log.lines("level=ERROR") > 0 || log.lines("level=WARN") > 0 {
		t.Errorf("the log says:\n%s", &log.text)
	}
	checkCharges(t, s)
}

func TestDiskWithoutInodesIsServedFromAndUsedAgain(t *testing.T) {
	disk := fewInodes(t, 600)
	dir := filepath.Join(disk, "cache")
	repo := Repository{Upstream: "r", Name: "n"}
	kept, o := filltest.New(100_000, 1), filltest.New(100_000, 2)
	img := newImage("v1", kept)
	opts := Options{Segment: small.Segment, Tags: Freshness{StaleIfError: 1 << 40}}
	s := openStore(t, dir, opts)
	if _, _, err := s.Tag(t.Context(), repo, "v1", img.ask); err != nil {
		t.Fatal(err)
	}
	pullLayers(t, s, kept)
	for _, restart := range []bool{false, true} {
		if restart {
			closeStore(t, s)
		}
		takeInodes(t, disk, 0)
		if restart {
			s = openStore(t, dir, opts)
			<-s.blobs.Loaded()
			if !s.index.InMemory() {
				t.Error("the index was opened without an inode for its next table")
			}
		}
		if state := pull(t, s, kept); state != Hit {
			t.Errorf("restarted %t: what is in the cache: %s", restart, state)
		}
		if _, state, err := s.Tag(t.Context(), repo, "v1", dead); err != nil {
			t.Errorf("restarted %t: a tag: %s, %v", restart, state, err)
		}
		if state := pull(t, s, o); state != Bypass {
			t.Errorf("restarted %t: what is not in the cache: %s", restart, state)
		}
		settle(t, s)
		s.blobs.CheckDisk()
		if err := s.Degraded(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("restarted %t: degraded: %v", restart, err)
		}
		if err := os.RemoveAll(filepath.Join(disk, "others")); err != nil {
			t.Fatal(err)
		}
		s.blobs.CheckDisk()
		for _, want := range []State{Miss, Hit} {
			if state := pull(t, s, o); state != want {
				t.Errorf("restarted %t: with inodes again: %s, want %s", restart, state, want)
			}
			settle(t, s)
		}
		o = filltest.New(100_000, 3)
	}
}
