package cache

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
	"github.com/larder-registry/larder/deploy/deploytest"
)

// stock pulls n blobs of different sizes, and returns them in the order of their digests.
func stock(t *testing.T, s *Store, n, size int) []*filltest.Origin {
	t.Helper()
	var all []*filltest.Origin
	for i := range n {
		o := filltest.New(size+i, uint64(i))
		pull(t, s, o)
		all = append(all, o)
	}
	settle(t, s)
	slices.SortFunc(all, func(a, b *filltest.Origin) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	return all
}

// flip flips one bit of a blob at rest.
func flip(t *testing.T, s *Store, d digest.Digest, at int64) {
	t.Helper()
	f, err := os.OpenFile(s.folder.Blob(d), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// scrubbed scrubs everything, and fails the test unless this many blobs are intact and this
// many damaged.
func scrubbed(t *testing.T, s *Store, intact, damaged int64) {
	t.Helper()
	got, err := s.Scrub(t.Context(), nil)
	if err != nil || got.Blobs != intact || got.Mismatches != damaged {
		t.Errorf("scrub: %+v, %v; want %d intact and %d damaged blobs", got, err, intact, damaged)
	}
}

// meter reads the metrics of a store.
type meter struct {
	*metric.MeterProvider
	reader *metric.ManualReader
}

func newMeter() meter {
	reader := metric.NewManualReader()
	return meter{metric.NewMeterProvider(metric.WithReader(reader)), reader}
}

func (m meter) value(t *testing.T, name string) (n int64) {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := m.reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, it := range scope.Metrics {
			if it.Name != name {
				continue
			}
			var points []metricdata.DataPoint[int64]
			switch data := it.Data.(type) {
			case metricdata.Sum[int64]:
				points = data.DataPoints
			case metricdata.Gauge[int64]:
				points = data.DataPoints
			}
			for _, point := range points {
				n += point.Value
			}
		}
	}
	return n
}

func (m meter) scrubbed(t *testing.T) int64 {
	t.Helper()
	return m.value(t, "larder.scrub.bytes")
}

func TestScrubFindsFlippedBits(t *testing.T) {
	var log bytes.Buffer
	m := newMeter()
	s := openStore(t, t.TempDir(), Options{Meter: m, Log: slog.New(slog.NewTextHandler(&log, nil))})
	all := stock(t, s, 20, 300<<10)
	var size int64
	for _, o := range all {
		size += int64(len(o.Content))
	}
	damaged := []*filltest.Origin{all[0], all[7], all[19]}
	flip(t, s, damaged[0].Digest, 0)
	flip(t, s, damaged[1].Digest, 200<<10)
	flip(t, s, damaged[2].Digest, int64(len(damaged[2].Content))-1)

	var last, whole int64
	got, err := s.Scrub(t.Context(), func(done, total int64) {
		if done < last || done > total {
			t.Errorf("progress went to %d of %d, after %d", done, total, last)
		}
		last, whole = done, total
	})
	if want := (ScrubResult{Blobs: 17, Bytes: size, Mismatches: 3}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if last != size || whole != size {
		t.Errorf("progress ended at %d of %d, want %d", last, whole, size)
	}
	if n, read := m.value(t, "larder.scrub.mismatches"), m.scrubbed(t); n != 3 || read != size {
		t.Errorf("counted %d mismatches in %d bytes", n, read)
	}
	checkCharges(t, s)
	for i, o := range all {
		want := Hit
		if slices.Contains(damaged, o) {
			want = Miss
			if !strings.Contains(log.String(), o.Digest.String()) {
				t.Errorf("the log does not name blob %d", i)
			}
		}
		if state := pull(t, s, o); state != want {
			t.Errorf("blob %d: %s, want %s", i, state, want)
		}
	}
	settle(t, s)
	scrubbed(t, s, 20, 0)
}

func TestScrubFindsWrongSizes(t *testing.T) {
	for name, damage := range map[string]func(s *Store, o *filltest.Origin) error{
		"truncated": func(s *Store, o *filltest.Origin) error { return os.Truncate(s.folder.Blob(o.Digest), 999) },
		"empty":     func(s *Store, o *filltest.Origin) error { return os.Truncate(s.folder.Blob(o.Digest), 0) },
		"too long":  func(s *Store, o *filltest.Origin) error { return os.Truncate(s.folder.Blob(o.Digest), 1<<20) },
		"truncated, without a record": func(s *Store, o *filltest.Origin) error {
			return errors.Join(os.Truncate(s.folder.Blob(o.Digest), 999), s.index.RemoveBlob(o.Digest))
		},
		"intact, with a wrong record": func(s *Store, o *filltest.Origin) error {
			return s.index.PutBlob(o.Digest, records.Blob{Size: 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, t.TempDir(), Options{})
			all := stock(t, s, 2, 300<<10)
			if err := damage(s, all[0]); err != nil {
				t.Fatal(err)
			}
			scrubbed(t, s, 1, 1)
			checkCharges(t, s)
			if state := pull(t, s, all[0]); state != Miss {
				t.Errorf("the damaged blob: %s", state)
			}
		})
	}
}

func TestManifestRemovedByAScrubIsFetchedAgain(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	img := newImage("a")
	get := func(want State) {
		t.Helper()
		m, state, err := s.Manifest(t.Context(), team, img.Digest, img.ask)
		if err != nil || state != want || string(m.Raw) != string(img.Raw) {
			t.Errorf("%s, %v; want %s", state, err, want)
		}
	}
	get(Miss)
	get(Hit)
	flip(t, s, img.Digest, 10)
	scrubbed(t, s, 0, 1)
	get(Miss)
	get(Hit)
	scrubbed(t, s, 1, 0)
}

func TestBlobThatCannotBeReadIsDamaged(t *testing.T) {
	var log bytes.Buffer
	s := openStore(t, t.TempDir(), Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	o := stock(t, s, 2, 1000)[0]
	path := s.folder.Blob(o.Digest)
	if err := s.index.RemoveBlob(o.Digest); err != nil { // so that its size does not show the damage
		t.Fatal(err)
	}
	// Nothing is mapped at the address 0, so a read of this file fails with EIO. A mount point
	// cannot be removed.
	uncover := deploytest.Cover(t, path, "/proc/self/mem")
	_, err := s.Scrub(t.Context(), nil)
	uncover()
	if err != nil || !strings.Contains(log.String(), "could not be removed") {
		t.Errorf("scrub: %v; the log says %q", err, &log)
	}
	checkCharges(t, s)
	scrubbed(t, s, 2, 0)
}

func TestScrubSkipsBlobsThatAreEvictedDuringIt(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	all := stock(t, s, 6, 300<<10)
	began := false
	got, err := s.Scrub(t.Context(), func(int64, int64) {
		if began {
			return
		}
		began = true
		if err := evictOne(s, all[5].Digest, blobs.ReasonUnused); err != nil {
			t.Error(err)
		}
		if err := evictNow(s, 4*300<<10); err != nil {
			t.Error(err)
		}
	})
	left := int64(len(files(t, filepath.Join(s.folder.Dir(), "blobs"))))
	if err != nil || got.Mismatches != 0 || got.Blobs != left || left == 0 || left > 2 {
		t.Errorf("%+v, %v; %d blobs are left", got, err, left)
	}
}

func TestScrubKeepsABlobThatReplacedADamagedOne(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	o := stock(t, s, 1, 300<<10)[0]
	flip(t, s, o.Digest, 0)
	replaced := false
	got, err := s.Scrub(t.Context(), func(done, _ int64) {
		if done > 0 && !replaced {
			replaced = true
			if err := s.folder.WriteBlob(o.Digest, o.Content); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil || !replaced || got.Mismatches != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if state := pull(t, s, o); state != Hit {
		t.Errorf("the new blob: %s", state)
	}
}

func TestScrubIgnoresBlobsOfRunningFills(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	o := filltest.New(1000, 1)
	release := make(chan struct{})
	o.Plan = func(int, Range) filltest.Act { return filltest.Act{Gate: func(int64) { <-release }} }
	blob := open(t, s, o)
	defer blob.Close()
	if err := s.folder.WriteBlob(o.Digest, []byte("something else")); err != nil {
		t.Fatal(err)
	}
	scrubbed(t, s, 0, 0)
	close(release)
	o.Compare(t, blob, 0, 1000)
	settle(t, s)
	scrubbed(t, s, 1, 0)
}

func TestCloseEndsAScrub(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	stock(t, s, 3, 300<<10)
	closed := make(chan error, 1)
	_, err := s.Scrub(t.Context(), func(done, _ int64) {
		if done > 0 && s.tasks.Context().Err() == nil {
			go func() { closed <- s.Close() }()
			<-s.tasks.Context().Done()
		}
	})
	if !errors.Is(err, ErrClosed) {
		t.Errorf("scrub: %v", err)
	}
	if err := receive(t, closed, "the store is closed"); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := s.Scrub(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("scrub after Close: %v", err)
	}
}

// stockSlow stores blobs for which a background pass takes more than a second, and returns
// their size.
func stockSlow(t *testing.T, s *Store) (size int64) {
	t.Helper()
	for i := range 6 {
		o := filltest.New(4<<20, uint64(i))
		if err := s.blobs.Put(t.Context(), o.Digest, o.Content, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		size += int64(len(o.Content))
	}
	return size
}

// background runs a background pass, or the rest of one, without the hour before it: Badger
// wakes up so often that an hour in a bubble takes a second.
func background(s *Store) {
	pos := s.index.ScrubPosition()
	_ = s.tasks.Go(func() { _ = s.blobs.ContinueScrub(s.tasks.Context(), &pos) })
}

func TestBackgroundScrubKeepsTheDefaultRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter()
		s := openStore(t, t.TempDir(), Options{Meter: m, ScrubEvery: -1})
		size := stockSlow(t, s)
		background(s)
		pass(time.Second)
		synctest.Wait()
		if n := m.scrubbed(t); n < 20_000_000*9/10 || n > 20_000_000 {
			t.Errorf("%d bytes were read in a second", n)
		}
		pass(time.Second)
		if n := m.scrubbed(t); n != size {
			t.Errorf("%d of %d bytes were read after two seconds", n, size)
		}
	})
}

func TestBackgroundScrubKeepsTheRateItIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 5_000_000
		m := newMeter()
		s := openStore(t, t.TempDir(), Options{Meter: m, ScrubEvery: -1, ScrubRate: rate})
		stockSlow(t, s)
		background(s)
		pass(2 * time.Second)
		synctest.Wait()
		if n := m.scrubbed(t); n < 2*rate*9/10 || n > 2*rate {
			t.Errorf("%d bytes were read in two seconds", n)
		}
	})
}

func TestBackgroundScrubRemovesDamagedBlobs(t *testing.T) {
	for name, c := range map[string]struct {
		every time.Duration
		want  State
	}{"by default": {0, Miss}, "turned off": {-1, Hit}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, t.TempDir(), Options{ScrubEvery: c.every})
				all := stock(t, s, 3, 1000)
				flip(t, s, all[1].Digest, 500)
				pass(time.Hour - 1)
				synctest.Wait()
				if _, err := s.Stat(all[1].Digest); err != nil {
					t.Error("the pass began before it was due")
				}
				pass(time.Second)
				blob := open(t, s, all[1])
				if blob.Close(); blob.State != c.want {
					t.Errorf("the damaged blob: %s, want %s", blob.State, c.want)
				}
				settle(t, s)
				if _, err := s.Scrub(t.Context(), nil); err != nil { // so that the folder passes its check
					t.Error(err)
				}
			})
		})
	}
}

func TestBackgroundScrubContinuesAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var size int64
		run := func(d time.Duration) int64 {
			m := newMeter()
			s := openStore(t, dir, Options{Meter: m, ScrubEvery: -1})
			if size == 0 {
				size = stockSlow(t, s)
			}
			background(s)
			pass(d)
			synctest.Wait()
			read := m.scrubbed(t)
			closeStore(t, s)
			return read
		}
		first := run(time.Second / 2)
		if first < size/4 || first > size*3/4 {
			t.Fatalf("%d of %d bytes were read before the restart", first, size)
		}
		second := run(10 * time.Second)
		if repeated := first + second - size; repeated < 0 || repeated > 4<<20 {
			t.Errorf("%d of %d bytes were read before a restart, and %d after it", first, size, second)
		}
		s := openStore(t, dir, Options{ScrubEvery: -1})
		if pos := s.index.ScrubPosition(); !pos.Over() {
			t.Errorf("after the pass the position is %+v", pos)
		}
	})
}

func TestScrubsRunOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter()
		s := openStore(t, t.TempDir(), Options{Meter: m, ScrubEvery: -1})
		size := stockSlow(t, s)
		release, done := make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := s.Scrub(t.Context(), func(int64, int64) { <-release })
			done <- err
		}()
		synctest.Wait()
		background(s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Scrub(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second scrub: %v", err)
		}
		if n := m.scrubbed(t); n != 0 {
			t.Errorf("%d bytes were read in the background", n)
		}
		close(release)
		if err := receive(t, done, "the scrub is over"); err != nil {
			t.Error(err)
		}
		pass(10 * time.Second)
		if n := m.scrubbed(t); n != 2*size {
			t.Errorf("two passes over %[2]d bytes read %[1]d", n, size)
		}
	})
}
