package cache

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache/fill/filltest"
)

// A site is an upstream that has, or claims to have, the same blob as others.
type site struct {
	*filltest.Origin
	source Source
}

// newSite returns an upstream with a blob of n bytes, whose manifest tells the size.
func newSite(upstream string, n int) *site {
	o := filltest.New(n, 1)
	return &site{o, Source{Upstream: upstream, Repository: "app", Size: int64(n), Fetch: o.Fetch}}
}

// always has the site answer each request in the same way.
func (s *site) always(a filltest.Act) *site {
	s.Plan = func(int, Range) filltest.Act { return a }
	return s
}

// pulled is what a client got.
type pulled struct {
	content []byte
	err     error
	took    time.Duration
}

// pull reads a blob in a goroutine, as a client of the site.
func (s *site) pull(store *Store) <-chan pulled {
	done := make(chan pulled, 1)
	go func() {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		blob, err := store.Open(ctx, s.Digest, s.source)
		if err != nil {
			done <- pulled{err: err, took: time.Since(begun)}
			return
		}
		defer blob.Close()
		content, err := io.ReadAll(blob)
		done <- pulled{content, err, time.Since(begun)}
	}()
	return done
}

// wantWhole checks that a client got the true content soon.
func (s *site) wantWhole(t *testing.T, who string, got pulled, within time.Duration) {
	t.Helper()
	if got.err != nil || string(got.content) != string(s.Content) || got.took > within {
		t.Errorf("%s: %d of %d bytes after %v, %v", who, len(got.content), len(s.Content), got.took, got.err)
	}
}

// soon is less than any client waits for headers.
const soon = 10 * time.Second

func TestSlowSourceHandsOverAtTheSameOffset(t *testing.T) {
	for name, upstreams := range map[string][2]string{"of one upstream": {"one", "one"}, "of two upstreams": {"one", "two"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := openStore(t, t.TempDir(), Options{})
				slow, good := newSite(upstreams[0], 4<<20).always(filltest.Act{Pace: time.Second}), newSite(upstreams[1], 4<<20)
				good.source.Repository = "other"
				first := slow.pull(store)
				pass(28 * time.Second)
				good.wantWhole(t, "the client of the healthy source", <-good.pull(store), soon)
				good.wantWhole(t, "the client of the slow source", <-first, time.Minute)
				settle(t, store)
				had, _ := slow.Total()
				if asks := good.Requests(); upstreams[0] == upstreams[1] && (len(asks) != 1 || asks[0].Off != had) {
					t.Errorf("the slow source sent %d bytes; the other was asked for %v", had, asks)
				}
				if sent, most := good.Total(); most != 1 && upstreams[0] == upstreams[1] || sent > 5<<20 {
					t.Errorf("the healthy source sent %d bytes, one of them %d times", sent, most)
				}
			})
		})
	}
}

func TestSilentSourceHandsOver(t *testing.T) {
	for name, act := range map[string]filltest.Act{
		"before its answer begins": {Wait: make(chan struct{})},
		"in the middle":            {Stall: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := openStore(t, t.TempDir(), Options{})
				if act.Wait != nil {
					act.Wait = make(chan struct{}) // of this bubble
				}
				silent, good := newSite("one", 4<<20).always(act), newSite("two", 4<<20)
				first := silent.pull(store)
				pass(time.Second)
				good.wantWhole(t, "the client of the healthy source", <-good.pull(store), soon)
				good.wantWhole(t, "the client of the silent source", <-first, soon)
				settle(t, store)
			})
		})
	}
}

// The refused client gets the refusal of its own source, though another source has the blob.
func TestRefusedSourceHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, t.TempDir(), Options{})
		asked := make(chan struct{})
		refused, good := newSite("one", 1<<20).always(filltest.Act{Wait: asked, Err: fs.ErrPermission}), newSite("two", 1<<20)
		first := refused.pull(store)
		synctest.Wait()
		second := good.pull(store)
		synctest.Wait()
		close(asked)
		good.wantWhole(t, "the client of the healthy source", <-second, soon)
		if got := <-first; !errors.Is(got.err, fs.ErrPermission) {
			t.Errorf("the refused client got %d bytes, %v", len(got.content), got.err)
		}
	})
}

func TestSourceThatLiesCutsItsOwnClientsAlone(t *testing.T) {
	const size = 4 << 20
	for name, c := range map[string]struct {
		act  filltest.Act
		hold time.Duration // before the rest of the lie arrives
	}{
		"at once":                     {filltest.Act{Flip: 1}, time.Second},
		"slower than others wait":     {filltest.Act{Flip: 1}, 5 * time.Second},
		"and stops in the middle":     {filltest.Act{Flip: 1, Stall: size / 2}, 0},
		"in the last byte":            {filltest.Act{Flip: size * 8}, time.Second},
		"and answers again and again": {filltest.Act{Flip: 1, Cut: 300_000}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := openStore(t, t.TempDir(), Options{})
				liar, good := newSite("one", size), newSite("two", size)
				hold := make(chan struct{})
				liar.always(c.act)
				if c.hold > 0 {
					c.act.Gate = func(off int64) {
						if off > 0 {
							<-hold
						}
					}
					liar.always(c.act)
				}
				first := liar.pull(store)
				synctest.Wait()
				var clients []<-chan pulled
				for range 3 {
					clients = append(clients, good.pull(store))
				}
				pass(c.hold)
				close(hold)
				for _, client := range clients {
					good.wantWhole(t, "a client of the healthy source", <-client, soon+c.hold)
				}
				if got := <-first; got.err == nil || len(got.content) >= size {
					t.Errorf("the client of the liar got %d bytes, %v", len(got.content), got.err)
				}
				settle(t, store)
			})
		})
	}
}

func TestAnswerOfAnotherSizeThanTheManifestReachesNoClient(t *testing.T) {
	for name, c := range map[string]struct {
		act    filltest.Act
		noSize bool
	}{
		"shorter":               {filltest.Act{Size: 10}, false},
		"longer":                {filltest.Act{Size: 5 << 20}, false},
		"short, without a size": {filltest.Act{Short: 2000}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := openStore(t, t.TempDir(), Options{})
				liar := newSite("one", 4<<20).always(c.act)
				liar.NoSize, liar.NoRanges = c.noSize, c.noSize
				if blob, err := store.Open(t.Context(), liar.Digest, liar.source); err == nil {
					t.Errorf("a blob of %d bytes was opened", blob.Size)
					blob.Close()
				}
				settle(t, store)
			})
		})
	}
}

func TestSourceThatTellsAnotherSizeHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, t.TempDir(), Options{})
		asked := make(chan struct{})
		liar, good := newSite("one", 4<<20).always(filltest.Act{Wait: asked, Size: 10}), newSite("two", 4<<20)
		first := liar.pull(store)
		synctest.Wait()
		second := good.pull(store)
		synctest.Wait()
		close(asked)
		good.wantWhole(t, "the client of the healthy source", <-second, soon)
		good.wantWhole(t, "the client whose manifest is right", <-first, soon)
	})
}

// Two manifests disagree: until the digest decides, each client is served as its own says.
func TestClientWhoseManifestTellsAnotherSizeUsesItsOwnSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, t.TempDir(), Options{})
		liar, good := newSite("one", 4<<20).always(filltest.Act{Size: 10, Stall: 5}), newSite("two", 4<<20)
		liar.source.Size = 10
		first := liar.pull(store)
		synctest.Wait()
		good.wantWhole(t, "the client of the healthy source", <-good.pull(store), soon)
		if got := <-first; got.err == nil || len(got.content) >= 10 {
			t.Errorf("the client of the liar got %d bytes, %v", len(got.content), got.err)
		}
		settle(t, store)
	})
}

func TestHealthySourcesShareOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, t.TempDir(), small)
		one, two := newSite("one", 3<<20), newSite("two", 3<<20)
		hold := make(chan struct{})
		one.always(filltest.Act{Gate: func(off int64) {
			if off > 0 {
				<-hold
			}
		}})
		var clients []<-chan pulled
		for range 4 {
			clients = append(clients, one.pull(store))
			synctest.Wait()
			clients = append(clients, two.pull(store))
		}
		pass(time.Second)
		close(hold)
		for _, client := range clients {
			one.wantWhole(t, "a client", <-client, soon)
		}
		settle(t, store)
		if n, most := one.Total(); n != 3<<20 || most != 1 || len(two.Requests()) != 0 {
			t.Errorf("%d bytes were sent, one of them %d times; the other upstream was asked %v", n, most, two.Requests())
		}
	})
}

// A source that is the only one is used as long as it sends anything.
func TestSlowSourceIsUsedWhereThereIsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, t.TempDir(), Options{})
		slow := newSite("one", 100).always(filltest.Act{Pace: time.Second})
		slow.wantWhole(t, "its client", <-slow.pull(store), 2*time.Minute)
	})
}

func TestFillThatNobodyReadsIsGivenUpIfNextToNothingArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, t.TempDir(), Options{})
		o := newSite("one", 1<<20)
		o.Plan = func(n int, _ Range) filltest.Act {
			return filltest.Act{Pace: []time.Duration{time.Second, 0}[min(n, 1)]}
		}
		blob, err := store.Open(t.Context(), o.Digest, o.source)
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Minute) // as long as somebody reads, it goes on
		if n := len(store.Fills()); n != 1 {
			t.Fatalf("%d fills", n)
		}
		if err := blob.Close(); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if n := len(store.Fills()); n != 0 {
			t.Errorf("%d fills a minute after the last client has left", n)
		}
		o.wantWhole(t, "the next client", <-o.pull(store), soon)
		settle(t, store)
		if n, most := o.Total(); n != 1<<20 || most != 1 {
			t.Errorf("%d bytes were sent, one of them %d times: what was on disk was not resumed", n, most)
		}
	})
}

func TestUpstreamDoesNotTakeTheSlotsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, t.TempDir(), Options{})
		ctx, leave := context.WithCancel(t.Context())
		var slow sync.WaitGroup
		for i := range 300 {
			o := filltest.New(1000, uint64(i+2))
			o.Plan = func(int, Range) filltest.Act { return filltest.Act{Pace: time.Second} }
			slow.Go(func() {
				blob, err := store.Open(ctx, o.Digest, Source{Upstream: "slow", Repository: "app", Fetch: o.Fetch})
				if err == nil {
					_, _ = io.Copy(io.Discard, blob)
					blob.Close()
				}
			})
		}
		synctest.Wait()
		good := newSite("good", 1<<20)
		good.wantWhole(t, "a client of another upstream", <-good.pull(store), time.Second)
		// A blob that waits for a slot of the slow upstream, too.
		other := newSite("slow", 1000)
		waits := other.pull(store)
		synctest.Wait()
		other.source.Upstream = "good"
		other.wantWhole(t, "a client whose upstream has slots", <-other.pull(store), soon)
		other.wantWhole(t, "the client that waited", <-waits, soon)
		leave()
		slow.Wait()
		pass(10 * time.Minute)
		if n := len(store.Fills()); n != 0 {
			t.Errorf("%d fills ten minutes after all clients have left", n)
		}
	})
}

// A liar's partial, whose size the client's manifest contradicts, is not resumed.
func TestPartialOfAnotherSizeThanTheManifestIsNotResumed(t *testing.T) {
	dir := t.TempDir()
	liar, good := newSite("one", 9<<20), newSite("two", 9<<20)
	liar.source.Size = 9<<20 + 5
	store := openStore(t, dir, resumable)
	liar.always(filltest.Act{Size: 9<<20 + 5, Stall: 1 << 20})
	blob, err := store.Open(t.Context(), liar.Digest, liar.source)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(blob, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	blob.Close()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	store = openStore(t, dir, resumable)
	good.wantWhole(t, "the next client", <-good.pull(store), time.Minute)
	settle(t, store)
	if _, err := store.Stat(good.Digest); err != nil {
		t.Error(err)
	}
}
