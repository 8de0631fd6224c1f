package cache

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
)

// deleted is what the removed files of a folder take that this process has open.
func deleted(t *testing.T, dir string) int64 {
	t.Helper()
	const fds = "/proc/self/fd"
	all, err := os.ReadDir(fds)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[uint64]bool)
	var sum int64
	for _, fd := range all {
		path := filepath.Join(fds, fd.Name())
		target, err := os.Readlink(path)
		if err != nil || !strings.HasPrefix(target, dir) || !strings.HasSuffix(target, " (deleted)") {
			continue
		}
		var st syscall.Stat_t
		if syscall.Stat(path, &st) == nil && !seen[st.Ino] {
			seen[st.Ino] = true
			sum += st.Blocks * 512
		}
	}
	return sum
}

func TestRemovedFileCountsUntilItIsClosed(t *testing.T) {
	const size = 2 << 20
	remove := func(t *testing.T, s *Store, o *filltest.Origin) {
		t.Helper()
		if err := evictOne(s, o.Digest, blobs.ReasonRemoved); err != nil {
			t.Fatal(err)
		}
	}
	for name, begin := range map[string]func(t *testing.T, s *Store, o *filltest.Origin) *Blob{
		"a hit": func(t *testing.T, s *Store, o *filltest.Origin) *Blob {
			pull(t, s, o)
			settle(t, s)
			blob := open(t, s, o)
			remove(t, s, o)
			return blob
		},
		"a reader of a fill": func(t *testing.T, s *Store, o *filltest.Origin) *Blob {
			blob := open(t, s, o)
			settle(t, s)
			remove(t, s, o)
			return blob
		},
		"a reader of a fill that failed": func(t *testing.T, s *Store, o *filltest.Origin) *Blob {
			joined := make(chan struct{})
			o.Plan = func(int, Range) filltest.Act {
				return filltest.Act{Flip: 1, Gate: func(int64) { <-joined }}
			}
			blob := open(t, s, o)
			close(joined)
			settle(t, s)
			return blob
		},
		"a reader of a partial": func(t *testing.T, s *Store, o *filltest.Origin) *Blob {
			joined := make(chan struct{})
			o.Plan = func(n int, _ Range) filltest.Act {
				if n > 0 {
					return filltest.Act{Err: filltest.ErrBroken}
				}
				return filltest.Act{Cut: size / 2, Gate: func(int64) { <-joined }}
			}
			blob := open(t, s, o)
			close(joined)
			settle(t, s)
			remove(t, s, o)
			return blob
		},
		"a damaged blob": func(t *testing.T, s *Store, o *filltest.Origin) *Blob {
			pull(t, s, o)
			settle(t, s)
			blob := open(t, s, o)
			flip(t, s, o.Digest, 1000)
			scrubbed(t, s, 0, 1)
			return blob
		},
		"a blob that was replaced": func(t *testing.T, s *Store, o *filltest.Origin) *Blob {
			pull(t, s, o)
			settle(t, s)
			blob := open(t, s, o)
			if err := os.Truncate(s.folder.Blob(o.Digest), size/2); err != nil {
				t.Fatal(err)
			}
			s.blobs.Distrust(o.Digest)
			eventually(t, "the damaged blob is removed", func() bool { return s.items.Len() == 0 })
			pull(t, s, o)
			settle(t, s)
			return blob
		},
	} {
		t.Run(name, func(t *testing.T) {
			opts := bounded
			opts.Segment = size
			opts.Retry = Retry{First: 1, Later: 1, Pause: time.Millisecond}
			s := openStore(t, t.TempDir(), opts)
			o := filltest.New(size, 1)
			blob := begin(t, s, o)
			used, _ := s.space.Account()
			if n := s.blobs.Unlinked(); n != disk.Charge(size) || used != s.items.Bytes()+n || deleted(t, s.folder.Dir()) == 0 {
				t.Errorf("%d bytes of removed files are counted, %d in all, and the items have %d", n, used, s.items.Bytes())
			}
			if err := blob.Close(); err != nil {
				t.Error(err)
			}
			used, _ = s.space.Account()
			if n := s.blobs.Unlinked(); n != 0 || used != s.items.Bytes() || deleted(t, s.folder.Dir()) != 0 {
				t.Errorf("after it was closed: %d bytes of removed files are counted, %d in all, and the items have %d", n, used, s.items.Bytes())
			}
		})
	}
}

func TestStatsShowRemovedFilesThatAreRead(t *testing.T) {
	m := newMeter()
	opts := bounded
	opts.Meter = m
	dir := t.TempDir()
	s := openStore(t, dir, opts)
	o := filltest.New(2<<20, 1)
	pull(t, s, o)
	settle(t, s)
	before := s.Activity()
	blob := open(t, s, o)
	defer blob.Close()
	if err := evictOne(s, o.Digest, blobs.ReasonRemoved); err != nil {
		t.Fatal(err)
	}
	st, err := s.Stats()
	a := s.Activity()
	if want := disk.Charge(2 << 20); err != nil || st.Unlinked != want || a.Unlinked != want || a.Bytes < want || a.Bytes < before.Bytes {
		t.Errorf("stats: %+v, %v; activity: %+v", st, err, a)
	}
	if n := m.value(t, "larder.cache.unlinked"); n != disk.Charge(2<<20) {
		t.Errorf("the metric says %d", n)
	}
	closeStore(t, s)
	s = openStore(t, dir, opts) // the files end with the process that has them open
	loaded(t, s)
	if used, _ := s.space.Account(); s.blobs.Unlinked() != 0 || used != 0 {
		t.Errorf("after a restart: %d bytes of removed files of %d", s.blobs.Unlinked(), used)
	}
}

func TestEvictionLeavesBlobsThatAreRead(t *testing.T) {
	s := openStore(t, t.TempDir(), bounded)
	read, cold, unread := filltest.New(2<<20, 1), filltest.New(2<<20, 2), filltest.New(2<<20, 3)
	pull(t, s, read)
	settle(t, s)
	for _, blob := range []*Blob{open(t, s, read), open(t, s, cold)} { // a hit, and a fill
		defer blob.Close()
	}
	settle(t, s)
	pull(t, s, unread)
	settle(t, s)
	if state := pull(t, s, filltest.New(3<<20, 4)); state != Miss {
		t.Errorf("pulled: %s", state)
	}
	settle(t, s)
	for o, want := range map[*filltest.Origin]bool{read: true, cold: true, unread: false} {
		if _, err := s.Stat(o.Digest); (err == nil) != want {
			t.Errorf("blob of %s: %v", o.Digest, err)
		}
	}
}

// Ten clients hold everything that the cache may have. What comes then is passed through, until
// they have left.
func TestCacheFullOfBlobsThatAreReadPassesThrough(t *testing.T) {
	var log logBuffer
	opts := bounded
	opts.Log = log.log()
	s := openStore(t, t.TempDir(), opts)
	var stalled []*Blob
	for i := range 10 {
		stalled = append(stalled, open(t, s, filltest.New(850<<10, uint64(i))))
		settle(t, s)
	}
	for i := range 3 {
		o := filltest.New(2<<20, uint64(100+i))
		if state := pull(t, s, o); state != Bypass {
			t.Errorf("pulled: %s", state)
		}
		settle(t, s)
	}
	s.blobs.CheckDisk()
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded: %v", err)
	}
	if n := usage(t, s) + deleted(t, s.folder.Dir()); n > opts.MaxSize {
		t.Errorf("the folder takes %d bytes, want at most %d", n, opts.MaxSize)
	}
	for _, blob := range stalled {
		if err := blob.Close(); err != nil {
			t.Error(err)
		}
	}
	if state := pull(t, s, filltest.New(2<<20, 200)); state != Miss {
		t.Errorf("after they have left: %s", state)
	}
	settle(t, s)
	checkCharges(t, s)
}

// Clients stop in the middle of blobs, of hits and of fills, while blobs are evicted, removed
// and replaced.
func TestFolderStaysWithinItsBoundWithStalledClients(t *testing.T) {
	opts := bounded
	opts.LowWater = 0.9
	s := openStore(t, t.TempDir(), opts)
	var all []*filltest.Origin
	for i := range 24 {
		all = append(all, filltest.New(700<<10+i*1000, uint64(i)))
	}
	seed := testSeed(t)
	var clients sync.WaitGroup
	for c := range 4 {
		random := rand.New(rand.NewPCG(seed, uint64(c)))
		clients.Go(func() {
			var stalled []*Blob
			for range 40 {
				o := all[random.IntN(len(all))]
				blob, err := s.Open(t.Context(), o.Digest, o.Source())
				if err != nil {
					t.Error(err)
					continue
				}
				if _, err := io.CopyN(io.Discard, blob, int64(random.IntN(600<<10))); err != nil {
					t.Error(err)
				}
				stalled = append(stalled, blob)
				if random.IntN(4) == 0 {
					if err := evictOne(s, all[random.IntN(len(all))].Digest, blobs.ReasonRemoved); err != nil {
						t.Error(err)
					}
				}
				if n := usage(t, s) + deleted(t, s.folder.Dir()); n > opts.MaxSize {
					t.Errorf("the folder takes %d bytes, want at most %d", n, opts.MaxSize)
				}
				for len(stalled) > random.IntN(4) {
					if err := stalled[0].Close(); err != nil {
						t.Error(err)
					}
					stalled = stalled[1:]
				}
			}
			for _, blob := range stalled {
				if err := blob.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	settle(t, s)
	checkCharges(t, s)
	if n := s.blobs.Unlinked(); n != 0 {
		t.Errorf("%d bytes of removed files are counted, and all are closed", n)
	}
}

// What is known of the repository is looked up at each hit.
func TestHitAllocatesNothingButItsFile(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	o := filltest.New(100_000, 1)
	pull(t, s, o)
	settle(t, s)
	count := func(open func() *Blob) float64 {
		return testing.AllocsPerRun(100, func() {
			blob := open()
			if blob == nil {
				t.Fatal("no hit")
			}
			_ = blob.Close()
		})
	}
	want := count(func() *Blob { return s.blobs.OpenFile(o.Digest, -1) })
	for _, proof := range []records.Proof{records.Proven, records.ProvenElsewhere, records.NotTold} {
		repo := Repository{Upstream: "upstream.test", Name: "proof/" + string(proof)}
		if err := s.index.PutMember(repo, o.Digest, records.Member{Size: 100_000, Proven: proof}); err != nil {
			t.Fatal(err)
		}
		if got := count(func() *Blob { return s.BlobHere(repo, o.Digest) }); got > want {
			t.Errorf("proof %q: a hit makes %.0f allocations, and its file %.0f", proof, got, want)
		}
	}
}

// BenchmarkOpenHit opens and closes the file of a cached blob, as each hit does.
func BenchmarkOpenHit(b *testing.B) {
	for _, clients := range []int{1, 16} {
		b.Run(fmt.Sprint(clients, " clients"), func(b *testing.B) {
			s := openStore(b, b.TempDir(), Options{})
			var all []digest.Digest
			for i := range 64 {
				o := filltest.New(100_000, uint64(i))
				pull(b, s, o)
				all = append(all, o.Digest)
				if err := s.index.PutMember(team, o.Digest, records.Member{Size: 100_000, Proven: records.Proven}); err != nil {
					b.Fatal(err)
				}
			}
			settle(b, s)
			b.ReportAllocs()
			b.SetParallelism(clients)
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					blob := s.BlobHere(team, all[i%len(all)])
					if blob == nil {
						b.Fatal("no hit")
					}
					_ = blob.Close()
				}
			})
		})
	}
}
