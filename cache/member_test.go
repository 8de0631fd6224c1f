package cache

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
)

var (
	victim  = Repository{Upstream: "victim.test", Name: "a/x"}
	claims  = Repository{Upstream: "claims.test", Name: "b/y"}
	sibling = Repository{Upstream: "victim.test", Name: "b/y"}
)

// as makes the site a repository of a store.
func (s *site) as(store *Store, repo Repository) *site {
	s.source = store.Source(repo, s.Digest, int64(len(s.Content)), s.Fetch)
	return s
}

// lies are what an upstream may do that claims to have a blob of n bytes and does not have it.
func lies(n int) map[string]func(*site) {
	act := func(a filltest.Act) func(*site) { return func(s *site) { s.always(a) } }
	return map[string]func(*site){
		"nothing there": act(filltest.Act{Err: fs.ErrNotExist}),
		"denied":        act(filltest.Act{Err: fs.ErrPermission}),
		"broken":        act(filltest.Act{Err: filltest.ErrBroken}),
		"another size":  act(filltest.Act{Size: 10}),
		"the size, then silence": func(s *site) {
			s.Content = filltest.New(n, 99).Content
			s.always(filltest.Act{Stall: 1})
		},
		"the size, other bytes": func(s *site) { s.Content = filltest.New(n, 99).Content },
		"the size and the first bytes, then others": func(s *site) {
			lie := filltest.New(n, 99).Content
			copy(lie, s.Content[:64])
			s.Content = lie
		},
		"no size, other bytes": func(s *site) {
			s.Content = filltest.New(n, 99).Content
			s.NoSize = true
		},
		"no ranges, other bytes": func(s *site) {
			s.Content = filltest.New(n, 99).Content
			s.NoRanges = true
		},
	}
}

// wantNothing checks that a client of a liar got an error, and no byte that the liar did not
// send.
func (s *site) wantNothing(t *testing.T, got pulled) {
	t.Helper()
	if got.err == nil || len(got.content) > 0 && string(got.content) != string(s.Content[:len(got.content)]) {
		t.Errorf("the client of the liar got %d bytes, %v", len(got.content), got.err)
	}
	if sent, _ := s.Total(); int64(len(got.content)) > sent {
		t.Errorf("the client of the liar got %d bytes, of which the liar sent %d", len(got.content), sent)
	}
}

func TestCachedBlobIsServedOnlyWhereItsStorageConfirmsIt(t *testing.T) {
	const n = 300_000
	for name, lie := range lies(n) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := openStore(t, t.TempDir(), Options{})
				good, liar := newSite("", n).as(store, victim), newSite("", n)
				good.wantWhole(t, "the victim's client", <-good.pull(store), soon)
				settle(t, store)
				lie(liar)
				liar.wantNothing(t, <-liar.as(store, claims).pull(store))
				if _, err := store.Size(claims, good.Digest); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("its size: %v", err)
				}
				if blob := store.BlobHere(claims, good.Digest); blob != nil {
					t.Error("it is a hit")
				}
			})
		})
	}
}

func TestBlobThatAnotherUpstreamSendsIsServedOnlyWhereItsStorageConfirmsIt(t *testing.T) {
	const n = 8 << 20
	for name, lie := range lies(n) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := openStore(t, t.TempDir(), Options{})
				good, liar := newSite("", n).as(store, victim), newSite("", n)
				good.always(filltest.Act{Gate: func(int64) { pass(time.Second) }})
				first := good.pull(store)
				pass(time.Second)
				lie(liar)
				liar.wantNothing(t, <-liar.as(store, claims).pull(store))
				isSlow := name == "broken" || name == "the size, then silence" // it is tried again for longer than the fill runs
				if len(store.Fills()) == 0 && !isSlow {
					t.Error("the fill has ended before")
				}
				good.wantWhole(t, "the victim's client", <-first, 2*time.Minute)
				settle(t, store)
			})
		})
	}
}

// The liar's client comes first, and the liar sends some bytes before the victim takes over.
func TestClientGetsNothingOfTheSourceThatTakesOver(t *testing.T) {
	const n, begun = 3 << 20, 300_000
	for name, a := range map[string]filltest.Act{
		"before an answer": {Wait: make(chan struct{})},
		"after the size":   {Stall: 1},
		"in the middle":    {Stall: begun},
		"and breaks off":   {Cut: begun},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := openStore(t, t.TempDir(), Options{})
				if a.Wait != nil {
					a.Wait = make(chan struct{}) // of this bubble
				}
				good, liar := newSite("", n).as(store, victim), newSite("", n).always(a)
				liar.Content = filltest.New(n, 99).Content
				second := liar.as(store, claims).pull(store)
				synctest.Wait()
				good.wantWhole(t, "the victim's client", <-good.pull(store), soon)
				liar.wantNothing(t, <-second)
				settle(t, store)
			})
		})
	}
}

func TestBlobOfTwoUpstreamsIsFetchedOnceAndConfirmedWithOneRequest(t *testing.T) {
	for _, n := range []int{1, 63, 64, 65, 2000, 3 << 20} {
		synctest.Test(t, func(t *testing.T) {
			store := openStore(t, t.TempDir(), Options{})
			one, two := newSite("", n).as(store, victim), newSite("", n).as(store, claims)
			one.wantWhole(t, "a client of the first", <-one.pull(store), soon)
			settle(t, store)
			var clients []<-chan pulled
			for range 5 {
				clients = append(clients, two.pull(store))
			}
			for _, client := range clients {
				two.wantWhole(t, "a client of the second", <-client, soon)
			}
			if sent, _ := two.Total(); len(two.Requests()) != 1 || sent > 64 {
				t.Errorf("%d bytes: the second was asked for %v, and sent %d", n, two.Requests(), sent)
			}
			two.wantWhole(t, "a later client", <-two.pull(store), soon)
			if len(two.Requests()) != 1 {
				t.Errorf("%d bytes: the second was asked for %v", n, two.Requests())
			}
		})
	}
}

func TestBlobThatAnotherUpstreamSendsIsConfirmedWithOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 3 << 20
		store := openStore(t, t.TempDir(), Options{})
		hold := make(chan struct{})
		one, two := newSite("", n).as(store, victim), newSite("", n).as(store, claims)
		one.always(filltest.Act{Gate: func(off int64) {
			if off > 0 {
				<-hold
			}
		}})
		first := one.pull(store)
		synctest.Wait()
		second := two.pull(store)
		synctest.Wait()
		close(hold)
		one.wantWhole(t, "a client of the first", <-first, soon)
		two.wantWhole(t, "a client of the second", <-second, soon)
		settle(t, store)
		if sent, _ := two.Total(); len(two.Requests()) != 1 || sent > 64 {
			t.Errorf("the second was asked for %v, and sent %d", two.Requests(), sent)
		}
	})
}

// What an earlier process has left may be of any upstream.
func TestPartialOfAnotherUpstreamIsNotServedToALiarsClient(t *testing.T) {
	const n = 9 << 20
	for name, lie := range lies(n) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				store := openStore(t, dir, resumable)
				good := newSite("", n).as(store, victim)
				good.always(filltest.Act{Stall: 5 << 20})
				ctx, leave := context.WithCancel(t.Context())
				blob, err := store.Open(ctx, good.Digest, good.source)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(blob, make([]byte, 5<<20)); err != nil {
					t.Fatal(err)
				}
				leave()
				blob.Close()
				closeStore(t, store)

				store = openStore(t, dir, resumable)
				liar := newSite("", n)
				lie(liar)
				liar.wantNothing(t, <-liar.as(store, claims).pull(store))
				settle(t, store)
			})
		})
	}
}

func TestMembershipIsProvenByDelivery(t *testing.T) {
	for name, a := range map[string]filltest.Act{
		"it sends nothing":         {Wait: make(chan struct{})},
		"it sends the first bytes": {Stall: 64},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 300_000
				store := openStore(t, t.TempDir(), Options{})
				if a.Wait != nil {
					a.Wait = make(chan struct{}) // of this bubble
				}
				silent, good := newSite("", n).always(a).as(store, claims), newSite("", n).as(store, victim)
				first := silent.pull(store)
				synctest.Wait()
				good.wantWhole(t, "the client of the source that delivers", <-good.pull(store), soon)
				settle(t, store)
				for repo, want := range map[Repository]bool{victim: true, claims: false, sibling: false} {
					if known, err := store.member(repo, good.Digest); (err == nil && known.Proven == records.Proven) != want {
						t.Errorf("%s: %+v, %v", repo, known, err)
					}
				}
				if got := <-first; got.err == nil {
					t.Error("the silent upstream's client was served")
				}
			})
		})
	}
}

func TestManifestsWordIsEnoughWithinOneUpstream(t *testing.T) {
	layer := filltest.New(1000, 1)
	img := newImage("image", layer)
	for name, c := range map[string]struct {
		repo   Repository
		opts   Options
		served bool
	}{
		"of the same upstream":                          {sibling, Options{}, true},
		"of another upstream":                           {claims, Options{}, false},
		"of the same upstream, some of which is hidden": {sibling, Options{NeedsProof: func(string) bool { return true }}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, t.TempDir(), c.opts)
			pullDigest(t, s, victim, img)
			pullFor(t, s, victim, layer)
			settle(t, s)
			pullDigest(t, s, c.repo, img)
			blob := s.BlobHere(c.repo, layer.Digest)
			if blob != nil {
				blob.Close()
			}
			if served := blob != nil; served != c.served {
				t.Errorf("served: %t", served)
			}
		})
	}
}
