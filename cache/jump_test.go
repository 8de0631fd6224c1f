package cache

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/tasks"
)

// farOrigin is an origin with a latency for each answer and a rate for each connection. It
// does not count what it sends.
type farOrigin struct {
	*filltest.Origin
	latency time.Duration
	rate    int64 // bytes per second of a connection
}

func (o *farOrigin) Fetch(ctx context.Context, r Range) (Content, error) {
	if err := tasks.Wait(ctx, o.latency); err != nil {
		return Content{}, err
	}
	rest := o.Content[r.Off:]
	body := &slowBody{bytes.NewReader(rest[:min(r.Len, int64(len(rest)))]), ctx, o.rate}
	return Content{Body: io.NopCloser(body), Size: int64(len(o.Content))}, nil
}

type slowBody struct {
	io.Reader
	ctx  context.Context
	rate int64
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p[:min(len(p), 16<<10)])
	if waited := tasks.Wait(b.ctx, time.Duration(int64(n)*int64(time.Second)/b.rate)); waited != nil {
		return 0, waited
	}
	return n, err
}

// A lazy snapshotter reads at random offsets of a layer while it is fetched. Nine in ten of its
// reads take at most three times as long as at the origin.
func TestJumpingReadersWaitLittle(t *testing.T) {
	const (
		size    = 128 << 20
		length  = 50 << 10
		readers = 8
		each    = 32
	)
	synctest.Test(t, func(t *testing.T) {
		far := &farOrigin{filltest.New(size, 1), 5 * time.Millisecond, 50_000_000}
		alone := far.latency + time.Duration(length*int64(time.Second)/far.rate)
		store := openStore(t, t.TempDir(), Options{})
		took := make([]time.Duration, readers*each)
		var all sync.WaitGroup
		for i := range readers {
			all.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(i)))
				for n := range each {
					began := time.Now()
					if err := readRange(t.Context(), store, far, random.Int64N(size-length), length); err != nil {
						t.Error(err)
						return
					}
					took[i*each+n] = time.Since(began)
				}
			})
		}
		all.Wait()
		slices.Sort(took)
		// The slowest reads wait for the first segments, which no client requested.
		if at := took[len(took)*9/10]; at > 3*alone {
			t.Errorf("one read in ten took %v or longer, want %v at most", at, 3*alone)
		}
	})
}

func readRange(ctx context.Context, s *Store, from *farOrigin, off, n int64) error {
	blob, err := s.Open(ctx, from.Digest, Source{Size: int64(len(from.Content)), Fetch: from.Fetch})
	if err != nil {
		return err
	}
	defer blob.Close()
	if _, err := blob.Seek(off, io.SeekStart); err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, blob, n)
	return err
}

// discard takes what a reader sends, as a socket does.
type discard struct{}

func (discard) ReadFrom(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }

// Clients that fetch a layer in ranges at once, as containerd 2.x and SOCI do, take little longer
// through a cold cache than without it, and cost at most twice as many requests upstream.
func TestRangesOfAColdLayerAreFetchedAsTheClientsAskForThem(t *testing.T) {
	const (
		size    = 128 << 20
		length  = 8 << 20
		readers = 10
	)
	for name, latency := range map[string]time.Duration{"near": time.Millisecond, "far": 60 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				far := &farOrigin{filltest.New(size, 1), latency, 50_000_000}
				var requests atomic.Int64
				counted := func(ctx context.Context, r Range) (Content, error) {
					requests.Add(1)
					return far.Fetch(ctx, r)
				}
				pull := func(one func(off int64) error) time.Duration {
					began := time.Now()
					next := make(chan int64, size/length)
					for off := int64(0); off < size; off += length {
						next <- off
					}
					close(next)
					var all sync.WaitGroup
					for range readers {
						all.Go(func() {
							for off := range next {
								if err := one(off); err != nil {
									t.Error(err)
								}
							}
						})
					}
					all.Wait()
					return time.Since(began)
				}
				direct := pull(func(off int64) error {
					content, err := far.Fetch(t.Context(), Range{Off: off, Len: length})
					if err != nil {
						return err
					}
					_, err = io.Copy(io.Discard, content.Body)
					return err
				})
				store := openStore(t, t.TempDir(), Options{})
				got := pull(func(off int64) error {
					blob, err := store.Open(t.Context(), far.Digest, Source{Size: size, Fetch: counted})
					if err != nil {
						return err
					}
					defer blob.Close()
					if _, err := blob.Seek(off, io.SeekStart); err != nil {
						return err
					}
					if fill, ok := blob.ReadSeeker.(interface {
						SendTo(dst io.ReaderFrom, n int64) (int64, error)
					}); ok {
						_, err = fill.SendTo(discard{}, length)
						return err
					}
					_, err = io.CopyN(io.Discard, blob, length)
					return err
				})
				t.Logf("%v with %d requests; without the cache %v with %d", got, requests.Load(), direct, size/length)
				if got > direct+direct/5+latency || requests.Load() > 2*size/length {
					t.Errorf("%v with %d requests; without the cache %v with %d", got, requests.Load(), direct, size/length)
				}
			})
		})
	}
}
