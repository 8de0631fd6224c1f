package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/fill/filltest"
)

// small splits a blob of some MiB into many segments.
var small = Options{Segment: 512 << 10, Connections: 4}

func TestFillServesSixteenReadersFromOneFetch(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(5<<20+123, 1)
	var readers sync.WaitGroup
	for range 16 {
		readers.Go(func() { pull(t, s, o) })
	}
	readers.Wait()
	settle(t, s)
	if n, most := o.Total(); n != int64(len(o.Content)) || most != 1 {
		t.Errorf("%d bytes were sent, one of them %d times", n, most)
	}
	if state := pull(t, s, o); state != Hit {
		t.Errorf("pulled again: %s", state)
	}
}

func TestSmallBlobIsFetchedWithOneRequest(t *testing.T) {
	for _, size := range []int{1, 1000, disk.ChunkSize, 1 << 20} {
		s := openStore(t, t.TempDir(), small)
		o := filltest.New(size, 1)
		pull(t, s, o)
		settle(t, s)
		if requests := o.Requests(); len(requests) != 1 || requests[0] != (Range{Len: int64(size), Size: int64(size)}) {
			t.Errorf("%d bytes were requested as %v", size, requests)
		}
	}
}

func TestFillOfALargeBlobUsesSeveralConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), small)
		o := filltest.New(5<<20, 1)
		var mu sync.Mutex
		together, arrived := 0, make(chan struct{})
		o.Plan = func(int, Range) filltest.Act {
			return filltest.Act{Gate: func(off int64) {
				if off != disk.ChunkSize && (off == 0 || off%small.Segment != 0) {
					return
				}
				mu.Lock()
				together++
				if together == small.Connections {
					close(arrived) // all four have begun, and none has ended
				}
				mu.Unlock()
				select {
				case <-arrived:
				case <-time.After(time.Second): // when nothing moves any more
					t.Errorf("the blob is not fetched by %d connections at the same time", small.Connections)
				}
			}}
		}
		pull(t, s, o)
		for _, request := range o.Requests() {
			if request.Len > small.Segment || request.Off == 0 && request.Spare {
				t.Errorf("requested %+v", request)
			}
		}
	})
}

func TestFillsShareThirtyTwoSpareConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const fills = 12 // together they would use 36 spare connections
		s := openStore(t, t.TempDir(), small)
		var spare atomic.Int64
		release := make(chan struct{})
		for i := range fills {
			o := filltest.New(5<<20, uint64(i))
			o.Plan = func(_ int, r Range) filltest.Act {
				if !r.Spare {
					return filltest.Act{}
				}
				spare.Add(1)
				return filltest.Act{Wait: release}
			}
			blob := open(t, s, o)
			defer blob.Close()
		}
		synctest.Wait()
		if n := spare.Load(); n != 32 {
			t.Errorf("%d fills use %d spare connections, want 32", fills, n)
		}
		close(release)
		settle(t, s)
	})
}

func TestFirstBytesAreFetchedByOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), small)
		o := filltest.New(5<<20, 1)
		o.Plan = func(int, Range) filltest.Act {
			return filltest.Act{Gate: func(off int64) {
				if off == 0 {
					<-time.After(time.Second) // when nothing else moves any more
					if requests := o.Requests(); len(requests) != 1 {
						t.Errorf("the requests before the first byte are %v", requests)
					}
				}
			}}
		}
		pull(t, s, o)
		settle(t, s)
		if len(o.Requests()) < 10 {
			t.Errorf("the requests after it are %v", o.Requests())
		}
	})
}

func TestEmptyBlobIsAHit(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(0, 1)
	for _, want := range []State{Hit, Hit} { // even the first: its fill is complete before the blob is opened
		if state := pull(t, s, o); state != want {
			t.Errorf("got %s, want %s", state, want)
		}
	}
}

func TestFillContinuesAfterItsReadersLeft(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(5<<20, 1)
	release := make(chan struct{})
	o.Plan = func(int, Range) filltest.Act {
		return filltest.Act{Gate: func(off int64) {
			if off > 0 {
				<-release
			}
		}}
	}
	ctx, leave := context.WithCancel(t.Context())
	for range 4 {
		blob, err := s.Open(ctx, o.Digest, Source{Fetch: o.Fetch})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(blob, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		defer blob.Close()
	}
	leave()
	close(release)
	settle(t, s)
	if state := pull(t, s, o); state != Hit {
		t.Errorf("after the readers had left: %s", state)
	}
	if n, most := o.Total(); n != int64(len(o.Content)) || most != 1 {
		t.Errorf("%d bytes were sent, one of them %d times", n, most)
	}
}

func TestWaitingReaderEndsWithItsContext(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(1000, 1)
	o.Plan = func(int, Range) filltest.Act { return filltest.Act{Stall: 10} }
	ctx, cancel := context.WithCancelCause(t.Context())
	blob, err := s.Open(ctx, o.Digest, Source{Fetch: o.Fetch})
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if _, err := io.ReadFull(blob, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("gone")
	cancel(gone)
	if _, err := blob.Read(make([]byte, 10)); !errors.Is(err, gone) {
		t.Errorf("read ended with %v", err)
	}
}

func TestSlowReaderDelaysNoOtherReader(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(5<<20, 1)
	slow := open(t, s, o)
	defer slow.Close()
	if _, err := slow.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	pull(t, s, o) // while the slow reader does not read
	settle(t, s)
	o.Compare(t, slow, 0, int64(len(o.Content))) // from the file, which has been renamed
	if n, _ := o.Total(); n != int64(len(o.Content)) {
		t.Errorf("%d bytes were sent", n)
	}
}

func TestReaderFarAheadIsServedBeforeTheBytesBetween(t *testing.T) {
	opts := small
	opts.Connections = 1
	s := openStore(t, t.TempDir(), opts)
	o := filltest.New(6<<20, 1)
	release := make(chan struct{})
	o.Plan = func(_ int, r Range) filltest.Act {
		if r.Off >= 4<<20 {
			return filltest.Act{}
		}
		return filltest.Act{Gate: func(off int64) {
			if off > 0 {
				<-release
			}
		}}
	}
	blob := open(t, s, o)
	defer blob.Close()
	o.Compare(t, blob, 4<<20, 4<<20+1000)
	close(release)
	o.Compare(t, blob, 0, int64(len(o.Content)))
	settle(t, s)
	if n, most := o.Total(); n != int64(len(o.Content)) || most != 1 {
		t.Errorf("%d bytes were sent, one of them %d times", n, most)
	}
}

func TestSourceWithoutRangesGetsOneConnection(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(5<<20, 1)
	o.NoRanges = true
	blob := open(t, s, o)
	defer blob.Close()
	o.Compare(t, blob, 4<<20, 5<<20)
	pull(t, s, o)
	settle(t, s)
	if n := len(o.Requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestFillUsesTheSizeOfTheManifestIfTheSourceSendsNone(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(3<<20, 1)
	o.NoSize, o.NoRanges = true, true
	pull(t, s, o)
	settle(t, s)
	other := filltest.New(1000, 2)
	other.NoSize = true
	if blob, err := s.Open(t.Context(), other.Digest, Source{Fetch: other.Fetch}); err == nil || !strings.Contains(err.Error(), "tells the size") {
		t.Errorf("a blob of unknown size: %v, %v", blob, err)
	}
}

func TestFillSurvivesBrokenConnections(t *testing.T) {
	for name, plan := range map[string]func(n int, r Range) filltest.Act{
		"all break":               func(int, Range) filltest.Act { return filltest.Act{Cut: 100 << 10} },
		"all stall":               func(int, Range) filltest.Act { return filltest.Act{Stall: 200 << 10} },
		"every second is refused": func(n int, _ Range) filltest.Act { return filltest.Act{Err: []error{nil, filltest.ErrBroken}[n%2]} },
		"spares are refused": func(_ int, r Range) filltest.Act {
			if r.Spare {
				return filltest.Act{Err: filltest.ErrBroken}
			}
			return filltest.Act{}
		},
		"the first one stalls": func(n int, r Range) filltest.Act {
			if r.Off < small.Segment && n < 9 {
				return filltest.Act{Stall: 1000}
			}
			return filltest.Act{}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, t.TempDir(), small)
				o := filltest.New(3<<20+7, 1)
				o.Plan = plan
				if state := pull(t, s, o); state != Miss {
					t.Errorf("pulled: %s", state)
				}
				settle(t, s)
				if n, most := o.Total(); n != int64(len(o.Content)) || most != 1 {
					t.Errorf("%d bytes were sent, one of them %d times", n, most)
				}
			})
		})
	}
}

func TestFailedFillIsResumedByTheNextRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), small)
		o := filltest.New(6<<20, 1)
		down := true
		o.Plan = func(_ int, r Range) filltest.Act {
			if down && r.Off > 0 {
				return filltest.Act{Err: filltest.ErrBroken}
			}
			return filltest.Act{}
		}
		blob := open(t, s, o)
		_, err := io.Copy(io.Discard, blob)
		if !errors.Is(err, filltest.ErrBroken) || blob.Err() == nil {
			t.Fatalf("read from a dead source: %v", err)
		}
		blob.Close()
		settle(t, s)
		down = false
		pull(t, s, o)
		settle(t, s)
		if n, most := o.Total(); n != int64(len(o.Content)) || most != 1 {
			t.Errorf("%d bytes were sent, one of them %d times", n, most)
		}
	})
}

func TestClientDoesNotShareTheFailureOfAnothersSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), small)
		o := filltest.New(1000, 1)
		begun := make(chan struct{})
		dead := func(context.Context, Range) (Content, error) {
			select {
			case <-begun:
			default:
				close(begun)
			}
			return Content{}, filltest.ErrBroken
		}
		var first sync.WaitGroup
		first.Go(func() {
			if _, err := s.Open(t.Context(), o.Digest, Source{Fetch: dead}); !errors.Is(err, filltest.ErrBroken) {
				t.Errorf("the client of the dead source: %v", err)
			}
		})
		receive(t, begun, "the first client's source is asked")
		pull(t, s, o)
		first.Wait()
	})
}

func TestOpenFailsSoonIfTheSourceIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), small)
		o := filltest.New(1000, 1)
		o.Plan = func(int, Range) filltest.Act { return filltest.Act{Err: filltest.ErrBroken} }
		begin := time.Now()
		if _, err := s.Open(t.Context(), o.Digest, Source{Fetch: o.Fetch}); !errors.Is(err, filltest.ErrBroken) {
			t.Errorf("open: %v", err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// The fill waits before it asks the source again. The time of its client ends before that.
func TestErrorOfAnEndedWaitSaysWhatTheFillWaitsFor(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Retry: Retry{Pause: time.Millisecond}})
	late, busy := errors.New("the client's time is over"), errors.New("too many requests")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	tries := 0
	_, err := s.Open(ctx, filltest.New(1000, 1).Digest, Source{Size: 1000, Fetch: func(ctx context.Context, _ Range) (Content, error) {
		if tries++; tries == 1 {
			return Content{}, busy
		}
		cancel(late)
		<-ctx.Done()
		return Content{}, context.Cause(ctx)
	}})
	if !errors.Is(err, late) || !errors.Is(err, busy) {
		t.Errorf("got %v, want %v and %v", err, late, busy)
	}
}

func TestMismatchingContentIsTruncatedAndDiscarded(t *testing.T) {
	for name, size := range map[string]int{"one byte": 1, "one chunk": 1000, "many segments": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			opts := small
			opts.Log = slog.New(slog.NewTextHandler(&log, nil))
			s := openStore(t, t.TempDir(), opts)
			o := filltest.New(size, 1)
			o.Plan = func(int, Range) filltest.Act { return filltest.Act{Flip: int64(size)*8 - 3} }
			blob, err := s.Open(t.Context(), o.Digest, Source{Fetch: o.Fetch})
			if err == nil { // else the fill ended before its first reader came
				var got []byte
				got, err = io.ReadAll(blob)
				if len(got) >= size || !errors.Is(blob.Err(), fill.ErrMismatch) {
					t.Errorf("the client got %d of %d bytes, and %v", len(got), size, blob.Err())
				}
				blob.Close()
			}
			if !errors.Is(err, fill.ErrMismatch) {
				t.Errorf("it ended with %v", err)
			}
			settle(t, s)
			if left := files(t, s.folder.Dir()+"/partial"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), o.Digest.String()) {
				t.Errorf("the log has %d errors:\n%s", n, &log)
			}
			o.Plan = nil
			if state := pull(t, s, o); state != Miss {
				t.Errorf("pulled again: %s", state)
			}
		})
	}
}

func TestReaderGetsNoFurtherChunkAfterAMismatch(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(3<<20, 1)
	last := make(chan struct{})
	o.Plan = func(int, Range) filltest.Act {
		return filltest.Act{Flip: 3<<23 - 3, Gate: func(off int64) {
			if off > 3<<20-disk.ChunkSize-1 {
				<-last
			}
		}}
	}
	blob := open(t, s, o)
	defer blob.Close()
	o.Compare(t, blob, 2<<20, 2<<20+1000) // all bytes of this range have arrived
	close(last)
	settle(t, s)
	if got, err := io.ReadAll(blob); len(got) >= disk.ChunkSize || !errors.Is(err, fill.ErrMismatch) {
		t.Errorf("read %d bytes more, %v", len(got), err)
	}
}

func TestReaderThatHasReadNothingGetsNothingAfterAMismatch(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(1<<20, 1)
	release := make(chan struct{})
	o.Plan = func(int, Range) filltest.Act { return filltest.Act{Flip: 1, Gate: func(int64) { <-release }} }
	blob := open(t, s, o)
	defer blob.Close()
	close(release)
	settle(t, s)
	if n, err := blob.Read(make([]byte, 10)); n > 0 || !errors.Is(err, fill.ErrMismatch) {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

func TestSourceThatReportsAnotherSizeIsDropped(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(3<<20, 1)
	o.Plan = func(n int, _ Range) filltest.Act {
		if n > 0 {
			return filltest.Act{Size: 4 << 20}
		}
		return filltest.Act{}
	}
	blob, err := s.Open(t.Context(), o.Digest, Source{Fetch: o.Fetch})
	if err == nil { // else the fill failed before its first reader came
		_, err = io.Copy(io.Discard, blob)
		blob.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "another size") {
		t.Errorf("it ended with %v", err)
	}
	settle(t, s)
	o.Plan = nil
	pull(t, s, o)
}

// A client requests its next layer at once. The sync of a large layer waits, so that it does
// not delay the first bytes of the next one. Close does not wait.
func TestLargeBlobIsSyncedAfterAPause(t *testing.T) {
	for name, test := range map[string]struct {
		size  int
		ends  bool
		pause time.Duration
	}{
		"large":                     {4 << 20, false, 50 * time.Millisecond},
		"large, and the store ends": {4 << 20, true, 0},
		"small":                     {4<<20 - 1, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var synced time.Time
				opts := Options{steps: disk.Steps{Around: func(s disk.Step, take func() error) error {
					if s.Op == disk.OpSync && strings.Contains(s.Path, "partial/sha256-") {
						synced = time.Now()
					}
					return take()
				}}}
				s := openStore(t, t.TempDir(), opts)
				pull(t, s, filltest.New(test.size, 1))
				pulled := time.Now()
				if test.ends {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				}
				settle(t, s)
				if got := synced.Sub(pulled); synced.IsZero() || got != test.pause {
					t.Errorf("synced after %v, want %v", got, test.pause)
				}
			})
		})
	}
}
