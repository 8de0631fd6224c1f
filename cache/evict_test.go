package cache

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// bounded leaves 8 MiB for blobs.
var bounded = Options{
	Segment: 512 << 10,
	MaxSize: 8<<20 + disk.BallastSize + disk.OverheadSlack + 1<<20,

	LowWater: 1, // so that no more is evicted than needed
}

// evictNow evicts need bytes, or everything that may be evicted.
func evictNow(s *Store, need int64) error {
	for tries := s.items.Len(); need > 0 && tries > 0; tries-- {
		d, expired, ok := s.items.First()
		if !ok {
			return nil
		}
		reason := blobs.ReasonUnused
		if expired {
			reason = blobs.ReasonExpired
		}
		n, err := s.blobs.Remove(reason, func() ([]digest.Digest, error) { return []digest.Digest{d}, nil })
		if err != nil {
			return err
		}
		need -= n
	}
	return nil
}

// evictOne evicts one blob, unless it is pinned or being written.
func evictOne(s *Store, d digest.Digest, reason string) error {
	_, err := s.blobs.Remove(reason, func() ([]digest.Digest, error) { return []digest.Digest{d}, nil })
	return err
}

// usage returns what the folder takes on disk, as du counts it.
func usage(t *testing.T, s *Store) int64 {
	t.Helper()
	n, err := disk.Usage(s.folder.Dir())
	if err != nil {
		t.Error(err)
	}
	return n
}

func TestFolderStaysWithinItsBound(t *testing.T) {
	s := openStore(t, t.TempDir(), bounded)
	var all []*filltest.Origin
	for i := range 24 {
		all = append(all, filltest.New(700<<10+i*1000, uint64(i)))
	}
	var clients sync.WaitGroup
	for c := range 8 {
		random := rand.New(rand.NewPCG(1, uint64(c)))
		clients.Go(func() {
			for range 10 {
				pull(t, s, all[random.IntN(len(all))])
				if n := usage(t, s); n > bounded.MaxSize {
					t.Errorf("the folder takes %d bytes, want at most %d", n, bounded.MaxSize)
				}
			}
		})
	}
	clients.Wait()
	settle(t, s)
	if kept := len(files(t, filepath.Join(s.folder.Dir(), "blobs"))); kept < 4 {
		t.Errorf("only %d blobs are kept", kept)
	}
	checkCharges(t, s)
}

// checkCharges compares the account of the store with the disk. No fill may run.
func checkCharges(t *testing.T, s *Store) {
	t.Helper()
	var sum int64
	for _, dir := range []string{"blobs", "partial"} {
		n, err := disk.Usage(filepath.Join(s.folder.Dir(), dir))
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if used, unconfirmed := s.space.Account(); used != s.items.Bytes()+s.blobs.Unlinked() || unconfirmed != 0 || sum > s.items.Bytes() {
		t.Errorf("%d bytes are reserved, %d of them unconfirmed; items have %d; the files take %d", used, unconfirmed, s.items.Bytes(), sum)
	}
}

func TestLeastRecentlyUsedBlobIsEvictedFirst(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, bounded)
	a, b, c := filltest.New(2<<20, 1), filltest.New(2<<20, 2), filltest.New(2<<20, 3)
	for _, o := range []*filltest.Origin{a, b, c} {
		pull(t, s, o)
		settle(t, s)
	}
	pull(t, s, a) // now b is the least recently used
	pull(t, s, filltest.New(3<<20, 4))
	settle(t, s)
	if _, err := s.Stat(b.Digest); err == nil {
		t.Error("the least recently used blob was not evicted")
	}
	for _, o := range []*filltest.Origin{c, a} {
		if state := pull(t, s, o); state != Hit {
			t.Errorf("a blob that was used later: %s", state)
		}
	}
}

func TestEvictionOrderSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir, bounded)
		a, b := filltest.New(3<<20, 1), filltest.New(3<<20, 2)
		for _, o := range []*filltest.Origin{a, b, a} {
			pull(t, s, o)
			settle(t, s)
			pass(time.Minute)
		}
		closeStore(t, s)
		s = openStore(t, dir, bounded)
		pull(t, s, filltest.New(3<<20, 3))
		settle(t, s)
		_, errA := s.Stat(a.Digest)
		_, errB := s.Stat(b.Digest)
		if errA != nil || errB == nil {
			t.Errorf("the blob used last: %v; the other: %v", errA, errB)
		}
	})
}

func TestKilledStoreLosesOnlyTheLastBatchOfUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), bounded)
		a, b := filltest.New(1000, 1), filltest.New(1000, 2)
		for _, o := range []*filltest.Origin{a, b, a} {
			pull(t, s, o)
			settle(t, s)
			pass(2 * tick)
		}
		noted := time.Now().Add(-2 * tick)
		pass(tick / 2) // between two batches
		pull(t, s, b)
		s = openStore(t, crash(t, s.folder.Dir()), bounded)
		for o, want := range map[*filltest.Origin]time.Time{a: noted, b: noted.Add(-2 * tick)} {
			var used int64
			err := s.index.EachUse(func(d digest.Digest, at int64) {
				if d == o.Digest {
					used = at
				}
			})
			if err != nil || used != want.Unix() {
				t.Errorf("used at %d, %v; want %d", used, err, want.Unix())
			}
		}
	})
}

// The clients pull as containerd does: that of the second image does not request the layer
// that it has from the first.
func TestSharedLayerSurvivesTheEvictionOfAnImage(t *testing.T) {
	s := openStore(t, t.TempDir(), bounded)
	base := filltest.New(2<<20, 1)
	own := []*filltest.Origin{filltest.New(2<<20, 2), filltest.New(2<<20, 3)}
	images := []*image{newImage("first", base, own[0]), newImage("second", base, own[1])}
	manifest := func(img *image, ask Ask) {
		if _, _, err := s.Manifest(t.Context(), team, img.Digest, ask); err != nil {
			t.Error(err)
		}
	}
	manifest(images[0], images[0].ask)
	pull(t, s, base)
	pull(t, s, own[0])
	settle(t, s)
	manifest(images[1], images[1].ask)
	pull(t, s, own[1])
	settle(t, s)
	pull(t, s, filltest.New(3<<20, 4))
	settle(t, s)
	if _, err := s.Stat(images[0].Digest); err == nil {
		t.Error("the manifest of the older image was not evicted")
	}
	manifest(images[1], dead)
	for _, o := range []*filltest.Origin{base, own[1]} {
		if state := pull(t, s, o); state != Hit {
			t.Errorf("a layer of the other image: %s", state)
		}
	}
}

func TestUsingAnImageUsesItsLayers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), bounded)
		layer, other := filltest.New(3<<20, 1), filltest.New(3<<20, 2)
		img := newImage("a", layer)
		use := func() {
			if _, _, err := s.Manifest(t.Context(), team, img.Digest, img.ask); err != nil {
				t.Fatal(err)
			}
		}
		use()
		pull(t, s, layer)
		settle(t, s)
		pull(t, s, other)
		settle(t, s)
		pass(2 * tick)
		use()
		pull(t, s, filltest.New(3<<20, 3))
		settle(t, s)
		if state := pull(t, s, layer); state != Hit {
			t.Errorf("the layer of an image in use: %s", state)
		}
	})
}

func TestConcurrentReservationsEvictOnlyWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	opts := bounded
	opts.MaxSize += 20 << 20
	s := openStore(t, dir, opts)
	for i := range 24 {
		pull(t, s, filltest.New(1<<20, uint64(i)))
	}
	settle(t, s)
	closeStore(t, s)
	s = openStore(t, dir, bounded) // with less than half of the space
	var needy sync.WaitGroup
	for range 4 {
		needy.Go(func() {
			if err := s.blobs.ReserveBytes(t.Context(), 1<<20); err != nil {
				t.Error(err)
				return
			}
			s.space.Confirm(1 << 20)
			s.space.Release(1 << 20)
		})
	}
	needy.Wait()
	if left := s.items.Bytes(); left < 3<<20 {
		t.Errorf("only %d bytes are left", left)
	}
}

func TestPartialThatCannotBeResumedReleasesItsSpace(t *testing.T) {
	dir := t.TempDir()
	o := filltest.New(9<<20, 1)
	interrupt(t, dir, o)
	if err := os.Truncate(disk.At(dir).Partial(o.Digest).Journal, 0); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir, Options{})
	o.Plan = func(int, Range) filltest.Act { return filltest.Act{Err: os.ErrNotExist} }
	if _, err := s.Open(t.Context(), o.Digest, Source{Fetch: o.Fetch}); err == nil {
		t.Error("opened")
	}
	settle(t, s)
	checkCharges(t, s)
}

func TestBlobLargerThanTheCacheEvictsNothing(t *testing.T) {
	s := openStore(t, t.TempDir(), bounded)
	small := filltest.New(1<<20, 1)
	pull(t, s, small)
	settle(t, s)
	if state := pull(t, s, filltest.New(20<<20, 2)); state != Bypass {
		t.Errorf("a blob larger than the cache: %s", state)
	}
	if state := pull(t, s, small); state != Hit {
		t.Errorf("the blob in the cache: %s", state)
	}
}

func TestEvictedBlobIsReadToItsEnd(t *testing.T) {
	s := openStore(t, t.TempDir(), bounded)
	o := filltest.New(2<<20, 1)
	pull(t, s, o)
	settle(t, s)
	blob := open(t, s, o)
	defer blob.Close()
	if err := evictNow(s, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(o.Digest); err == nil {
		t.Fatal("nothing was evicted")
	}
	o.Compare(t, blob, 0, 2<<20)
}

func TestUnusedPartialIsEvicted(t *testing.T) {
	dir := t.TempDir()
	lost := filltest.New(9<<20, 1)
	interrupt(t, dir, lost)
	opts := bounded
	opts.MaxSize += 4 << 20
	s := openStore(t, dir, opts)
	o := filltest.New(5<<20, 2)
	if state := pull(t, s, o); state != Miss {
		t.Errorf("got %s", state)
	}
	settle(t, s)
	if left := files(t, filepath.Join(dir, "partial")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	pull(t, s, lost)
	settle(t, s)
	checkCharges(t, s)
}

func TestResumedPartialIsCountedOnce(t *testing.T) {
	dir := t.TempDir()
	o := filltest.New(9<<20, 1)
	interrupt(t, dir, o)
	s := openStore(t, dir, resumable)
	pull(t, s, o)
	settle(t, s)
	checkCharges(t, s)
}

func TestEvictionEndsAtTheLowWaterMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := bounded
		opts.LowWater = 0.95
		s := openStore(t, t.TempDir(), opts)
		for i := range 12 {
			pull(t, s, filltest.New(1<<20, uint64(i)))
			settle(t, s)
		}
		synctest.Wait()
		if over, err := s.space.Excess(opts.LowWater, 0); err != nil || over.Bytes > 1<<20 {
			t.Errorf("%v are above the low water mark, %v", over, err)
		}
	})
}

func TestCacheShrinksWhenOthersFillTheDisk(t *testing.T) {
	disk := fullDisk(t, 160<<20, 160<<20-1<<20)
	s := openStore(t, filepath.Join(disk, "cache"), Options{MinFree: 70 << 20, Segment: 512 << 10})
	var all []*filltest.Origin
	for i := range 8 {
		all = append(all, filltest.New(4<<20, uint64(i)))
		pull(t, s, all[i])
		settle(t, s)
	}
	hog, err := os.Create(filepath.Join(disk, "more"))
	if err != nil {
		t.Fatal(err)
	}
	defer hog.Close()
	left, err := s.folder.Free()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.folder.Preallocate(hog, left-60<<20); err != nil { // 10 MiB below min_free
		t.Fatal(err)
	}
	s.blobs.Trim(1)
	if left, err := s.folder.Free(); err != nil || left < 70<<20 {
		t.Errorf("%d bytes are free, %v", left, err)
	}
	for i, o := range all {
		_, err := s.Stat(o.Digest)
		if wantKept := i >= 3; (err == nil) != wantKept { // three of 4 MiB are enough
			t.Errorf("blob %d of 8: %v", i, err)
		}
	}
}

// A command that opens the folder may not know the bounds of the daemon.
func TestKeepAllEvictsNothing(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Tags: freshness})
	layers := []*filltest.Origin{filltest.New(6<<20, 1), filltest.New(6<<20, 2)}
	for i, tag := range []string{"v1", "v2"} {
		pullTag(t, s, team, tag, newImage(tag, layers[i]), layers[i])
	}
	closeStore(t, s)

	opts := bounded
	opts.KeepAll = true
	s = openStore(t, dir, opts)
	if err := s.Pin(team, "v1"); err != nil {
		t.Error(err)
	}
	if err := s.Pin(team, "v2"); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a pin beyond the bound: %v", err)
	}
	s.blobs.Trim(1)
	closeStore(t, s)
	if pins, err := indexOf(t, s.folder.Snapshot()).Pins(); err != nil || len(pins) != 1 {
		t.Errorf("the pins of the snapshot: %v, %v", pins, err)
	}
	s = openStore(t, dir, Options{Tags: freshness})
	for _, tag := range []string{"v1", "v2"} {
		if img := listed(t, s)[team.String()+":"+tag]; !img.Complete || img.Pinned != (tag == "v1") {
			t.Errorf("%+v", img)
		}
	}
}
