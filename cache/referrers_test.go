package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/records"
)

// lister is an upstream's list of referrers.
type lister struct {
	list []ocispec.Descriptor
	err  error
	wait time.Duration // before it answers

	mu    sync.Mutex // guards asked; ask reads the rest while it has it
	asked int
}

func (l *lister) ask(ctx context.Context) ([]ocispec.Descriptor, error) {
	l.mu.Lock()
	l.asked++
	list, err, wait := l.list, l.err, l.wait
	l.mu.Unlock()
	select {
	case <-time.After(wait):
		return list, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// times returns how often it has been asked since the last call.
func (l *lister) times() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.asked
	l.asked = 0
	return n
}

// signature is a manifest that refers to another one.
func signature(of *image, name string) *image {
	raw := fmt.Appendf(nil, `{"mediaType": %q, "artifactType": "a/%s", "annotations": {"name": %[2]q}, "config": {"mediaType": "c", "digest": %q, "size": 2},
		"layers": [], "subject": {"mediaType": %[1]q, "digest": %[4]q, "size": %[5]d}}`,
		ocispec.MediaTypeImageManifest, name, digest.FromString("{}"), of.Digest, of.Size)
	return &image{Manifest: Manifest{Digest: digest.FromBytes(raw), MediaType: ocispec.MediaTypeImageManifest, Size: int64(len(raw)), Raw: raw}}
}

// referrer is how a registry lists a signature.
func referrer(sig *image, name string) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: sig.MediaType, Digest: sig.Digest, Size: sig.Size, ArtifactType: "a/" + name, Annotations: map[string]string{"name": name},
	}
}

// wantList asks for the referrers of an image, and checks the answer and how often the
// upstream has been asked since the last call.
func wantList(t *testing.T, s *Store, subject *image, l *lister, state State, asked int, want ...ocispec.Descriptor) {
	t.Helper()
	got, gotState, err := s.Referrers(t.Context(), team, subject.Digest, l.ask)
	times := l.times()
	if diff := cmp.Diff(want, got); diff != "" || gotState != state || err != nil || times != asked {
		t.Errorf("%s, asked %d times, %v; want %s, %d (-want +got):\n%s", gotState, times, err, state, asked, diff)
	}
}

// wantNoList is wantList for an answer that is an error.
func wantNoList(t *testing.T, s *Store, subject *image, l *lister, state State, asked int, want error) {
	t.Helper()
	got, gotState, err := s.Referrers(t.Context(), team, subject.Digest, l.ask)
	times := l.times()
	if !errors.Is(err, want) || got != nil || gotState != state || times != asked {
		t.Errorf("%v, %s, asked %d times, %v; want %s, %d, %v", got, gotState, times, err, state, asked, want)
	}
}

var errDown = errors.New("the upstream is down")

func TestReferrersAreAskedForOnceTheyAreNotFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		img := newImage("a")
		one, two := referrer(signature(img, "one"), "one"), referrer(signature(img, "two"), "two")
		l := &lister{list: []ocispec.Descriptor{one}}
		pullTag(t, s, team, "v1", img)
		wantList(t, s, img, l, Miss, 1, one)
		pass(freshness.TTL - 1)
		wantList(t, s, img, l, Hit, 0, one)
		pass(1)
		l.list = []ocispec.Descriptor{two, one}
		wantList(t, s, img, l, Miss, 1, two, one)
		wantList(t, s, img, l, Hit, 0, two, one)
	})
}

func TestClientsShareOneQuestionForReferrers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		img := newImage("a")
		l := &lister{list: []ocispec.Descriptor{referrer(signature(img, "one"), "one")}, wait: time.Second}
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if list, _, err := s.Referrers(t.Context(), team, img.Digest, l.ask); len(list) != 1 || err != nil {
					t.Errorf("%v, %v", list, err)
				}
			})
		}
		left, leave := context.WithCancel(t.Context())
		all.Go(func() {
			if _, _, err := s.Referrers(left, team, img.Digest, l.ask); !errors.Is(err, context.Canceled) {
				t.Errorf("the client that leaves: %v", err)
			}
		})
		synctest.Wait()
		leave()
		all.Wait()
		if times := l.times(); times != 1 {
			t.Errorf("asked %d times", times)
		}
	})
}

func TestReferrersAreServedStaleWhileTheUpstreamFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir, Options{Tags: freshness})
		img := newImage("a")
		one := referrer(signature(img, "one"), "one")
		l := &lister{list: []ocispec.Descriptor{one}}
		pullTag(t, s, team, "v1", img)
		wantList(t, s, img, l, Miss, 1, one)
		l.err = errDown
		pass(freshness.TTL)
		wantList(t, s, img, l, Stale, 1, one)
		wantList(t, s, img, l, Stale, 0, one) // it was asked a moment ago
		pass(freshness.Negative)
		l.wait = time.Hour
		begin := time.Now()
		wantList(t, s, img, l, Stale, 1, one)
		if took := time.Since(begin); took != staleWait {
			t.Errorf("a client waited %v for a silent upstream, want %v", took, staleWait)
		}
		pass(freshness.StaleIfError - freshness.TTL - freshness.Negative - staleWait - 1)
		closeStore(t, s)
		s = openStore(t, dir, Options{Tags: freshness})
		l.times()
		l.wait = 0
		wantList(t, s, img, l, Stale, 1, one)
		pass(freshness.Negative)
		wantNoList(t, s, img, l, Miss, 1, errDown)
	})
}

func TestFailureIsNeverAnEmptyListOfReferrers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		img := newImage("a")
		pullTag(t, s, team, "v1", img)
		l := &lister{err: errDown}
		wantNoList(t, s, img, l, Miss, 1, errDown)
		wantNoList(t, s, img, l, Miss, 1, errDown) // a failure is not remembered
		if _, _, err := s.Referrers(t.Context(), team, img.Digest, l.ask); errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v reads as none", err)
		}
	})
}

func TestEmptyListOfReferrersIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		img := newImage("a")
		pullTag(t, s, team, "v1", img)
		l := &lister{}
		wantList(t, s, img, l, Miss, 1)
		l.err = errDown
		pass(freshness.TTL)
		wantList(t, s, img, l, Stale, 1)
	})
}

func TestUpstreamWithoutReferrersIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir, Options{Tags: freshness})
		img := newImage("a")
		pullTag(t, s, team, "v1", img)
		l := &lister{err: fmt.Errorf("404: %w", ErrNoReferrers)}
		wantNoList(t, s, img, l, Miss, 1, ErrNoReferrers)
		wantNoList(t, s, img, l, Hit, 0, ErrNoReferrers)
		pass(freshness.Negative)
		wantNoList(t, s, img, l, Miss, 1, ErrNoReferrers)
		pass(freshness.Negative)
		closeStore(t, s)

		s = openStore(t, dir, Options{Tags: freshness})
		down := &lister{err: errDown}
		wantNoList(t, s, img, down, Stale, 1, ErrNoReferrers)
		wantNoList(t, s, img, down, Stale, 0, ErrNoReferrers)
		if _, _, err := s.Referrers(t.Context(), team, img.Digest, down.ask); errors.Is(err, errDown) {
			t.Error("clients may take the answer for a failure")
		}
		sig := signature(img, "one")
		pullDigest(t, s, team, sig) // by the tag
		wantList(t, s, img, down, Stale, 0, referrer(sig, "one"))
		pass(freshness.Negative)
		wantNoList(t, s, img, l, Miss, 1, ErrNoReferrers) // while the upstream answers, its answer counts
		l.err, l.list = nil, []ocispec.Descriptor{referrer(sig, "one")}
		pass(freshness.Negative)
		wantList(t, s, img, l, Miss, 1, referrer(sig, "one"))
	})
}

func TestRepositoryThatIsGoneHasNoReferrers(t *testing.T) {
	for name, pinned := range map[string]bool{"not pinned": false, "pinned": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, t.TempDir(), Options{Tags: freshness})
				img := newImage("a")
				one := referrer(signature(img, "one"), "one")
				pullTag(t, s, team, "v1", img)
				loaded(t, s)
				if pinned {
					if err := s.Pin(team, "v1"); err != nil {
						t.Fatal(err)
					}
				}
				l := &lister{list: []ocispec.Descriptor{one}}
				wantList(t, s, img, l, Miss, 1, one)
				pass(freshness.TTL)
				l.err = fmt.Errorf("no such repository: %w", fs.ErrNotExist)
				if pinned {
					wantList(t, s, img, l, Stale, 1, one)
					wantList(t, s, img, l, Stale, 0, one)
					return
				}
				wantNoList(t, s, img, l, Miss, 1, fs.ErrNotExist)
				wantNoList(t, s, img, l, Hit, 0, fs.ErrNotExist)
				pass(freshness.Negative)
				l.err = errDown
				wantNoList(t, s, img, l, Miss, 1, errDown)
			})
		})
	}
}

func TestDeniedListOfReferrersIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		img := newImage("a")
		l := &lister{err: fmt.Errorf("403: %w", fs.ErrPermission)}
		wantNoList(t, s, img, l, Miss, 1, fs.ErrPermission)
		wantNoList(t, s, img, l, Hit, 0, fs.ErrPermission)
		pass(freshness.Negative)
		wantNoList(t, s, img, l, Miss, 1, fs.ErrPermission)
	})
}

func TestReferrersInTheCacheAreListedWithoutTheUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir, Options{Tags: freshness})
		img := newImage("a")
		listed, here, elsewhere := signature(img, "listed"), signature(img, "here"), signature(img, "elsewhere")
		pullDigest(t, s, team, here)
		pullDigest(t, s, team, listed)
		pullDigest(t, s, Repository{Upstream: team.Upstream, Name: "another"}, elsewhere)
		down := &lister{err: errDown}
		want := []ocispec.Descriptor{referrer(here, "here"), referrer(listed, "listed")}
		slices.SortFunc(want, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
		wantList(t, s, img, down, Stale, 1, want...)
		wantList(t, s, img, down, Stale, 0, want...)

		pass(freshness.Negative)
		gone := referrer(signature(img, "gone"), "gone")
		l := &lister{list: []ocispec.Descriptor{gone, referrer(listed, "listed")}}
		wantList(t, s, img, l, Miss, 1, l.list...) // while the upstream answers, its answer counts
		pullTag(t, s, team, "v1", img)
		pass(freshness.TTL)
		wantList(t, s, img, l, Miss, 1, l.list...)
		closeStore(t, s)

		s = openStore(t, dir, Options{Tags: freshness})
		pass(freshness.TTL)
		wantList(t, s, img, down, Stale, 1, gone, referrer(listed, "listed"), referrer(here, "here"))
	})
}

// Releases before the lists have recorded the subjects of manifests already.
func TestReferrersOfAnEarlierReleaseAreListedWithoutTheUpstream(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Tags: freshness})
	img := newImage("a")
	sig := signature(img, "one")
	pullTag(t, s, team, "v1", img)
	pullDigest(t, s, team, sig)
	closeStore(t, s)
	index := indexOf(t, s.folder.Snapshot())
	if _, err := index.Referrers(team, img.Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the folder has a list: %v", err)
	}
	s = openStore(t, dir, Options{Tags: freshness})
	wantList(t, s, img, &lister{err: errDown}, Stale, 1, referrer(sig, "one"))
}

func TestReferrersSurviveTheLossOfTheIndex(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Tags: Freshness{StaleIfError: time.Hour}})
	img := newImage("a")
	sig, only := signature(img, "one"), referrer(signature(img, "only listed"), "only listed")
	pullTag(t, s, team, "v1", img)
	wantList(t, s, img, &lister{list: []ocispec.Descriptor{only}}, Miss, 1, only)
	pullDigest(t, s, team, sig)
	closeStore(t, s)
	if err := os.RemoveAll(s.folder.Index()); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, Options{Tags: Freshness{StaleIfError: time.Hour}})
	loaded(t, s)
	wantList(t, s, img, &lister{err: errDown}, Stale, 1, only, referrer(sig, "one"))
}

func TestReferrersGoWithTheirSubject(t *testing.T) {
	for name, remove := range map[string]func(*Store, *image) error{
		"evicted": func(s *Store, img *image) error { return evictOne(s, img.Digest, blobs.ReasonUnused) },
		"removed": func(s *Store, _ *image) error {
			_, err := s.Remove(team, "v1")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, t.TempDir(), Options{Tags: freshness})
			loaded(t, s)
			img := newImage("a")
			one := referrer(signature(img, "one"), "one")
			pullTag(t, s, team, "v1", img)
			wantList(t, s, img, &lister{list: []ocispec.Descriptor{one}}, Miss, 1, one)
			if _, err := s.index.Referrers(team, img.Digest); err != nil {
				t.Fatal(err)
			}
			if err := remove(s, img); err != nil {
				t.Fatal(err)
			}
			if rec, err := s.index.Referrers(team, img.Digest); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the list is left: %v, %v", rec, err)
			}
		})
	}
}

func TestReferrersOfUnknownSubjectsAreNotRecorded(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	img := newImage("a")
	one := referrer(signature(img, "one"), "one")
	wantList(t, s, img, &lister{list: []ocispec.Descriptor{one}}, Miss, 1, one)
	wantList(t, s, img, &lister{}, Hit, 0, one) // in memory
	pullTag(t, s, Repository{Upstream: team.Upstream, Name: "another"}, "v1", img)
	s.keepReferrers(RepoDigest{Repository: team, Digest: img.Digest}, records.Referrers{Checked: s.now()})
	if _, err := s.index.Referrers(team, img.Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a list of a digest that the repository does not have: %v", err)
	}
}

// A verifier may ask about an image before a runtime pulls it.
func TestReferrersAreRecordedWhenTheirSubjectComes(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Tags: Freshness{StaleIfError: time.Hour}})
	img := newImage("a")
	one := referrer(signature(img, "one"), "one")
	wantList(t, s, img, &lister{list: []ocispec.Descriptor{one}}, Miss, 1, one)
	pullTag(t, s, team, "v1", img)
	closeStore(t, s)
	s = openStore(t, dir, Options{Tags: Freshness{StaleIfError: time.Hour}})
	wantList(t, s, img, &lister{err: errDown}, Stale, 1, one)
}

func TestListsOfReferrersThatCannotBeOnesAreFailures(t *testing.T) {
	img := newImage("a")
	good := referrer(signature(img, "one"), "one")
	for name, damage := range map[string]func(*ocispec.Descriptor){
		"no digest":           func(d *ocispec.Descriptor) { d.Digest = "" },
		"a path":              func(d *ocispec.Descriptor) { d.Digest = "sha256:../../etc/passwd" },
		"another algorithm":   func(d *ocispec.Descriptor) { d.Digest = digest.SHA384.FromString("a") },
		"a negative size":     func(d *ocispec.Descriptor) { d.Size = -1 },
		"a long media type":   func(d *ocispec.Descriptor) { d.MediaType = strings.Repeat("a", 256) },
		"a long artifactType": func(d *ocispec.Descriptor) { d.ArtifactType = strings.Repeat("a", 256) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, t.TempDir(), Options{Tags: freshness})
				pullTag(t, s, team, "v1", img)
				wantList(t, s, img, &lister{list: []ocispec.Descriptor{good}}, Miss, 1, good)
				pass(freshness.TTL)
				bad := good
				damage(&bad)
				wantList(t, s, img, &lister{list: []ocispec.Descriptor{good, bad}}, Stale, 1, good)
			})
		})
	}
}

func TestLargeListsOfReferrersTakeLittleMemory(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	img := newImage("a")
	pullTag(t, s, team, "v1", img)
	var list []ocispec.Descriptor
	for i := range 10_000 {
		list = append(list, referrer(newImage(fmt.Sprint(i)), strings.Repeat("a", 200)))
	}
	wantList(t, s, img, &lister{list: list}, Miss, 1, list...)
	wantList(t, s, img, &lister{list: list}, Miss, 1, list...) // it was not kept
	if s.memory.referrers.bytes > memoryReferrers {
		t.Errorf("%d bytes are remembered", s.memory.referrers.bytes)
	}
	if _, err := s.index.Referrers(team, img.Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the list was recorded: %v", err)
	}
}

func TestTagOfReferrersInTheCacheSendsClientsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		img := newImage("a")
		pullTag(t, s, team, ReferrersTag(img.Digest), newIndex())
		wantNoList(t, s, img, &lister{err: errDown}, Stale, 1, ErrNoReferrers)
	})
}

func TestReferrersTagIsTheOneOfTheSpecification(t *testing.T) {
	for d, want := range map[digest.Digest]string{
		digest.FromString("a"):        "sha256-" + digest.FromString("a").Encoded(),
		digest.SHA512.FromString("a"): "sha512-" + digest.SHA512.FromString("a").Encoded()[:64],
	} {
		if got := ReferrersTag(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

func TestReferrersOfAnOfflineUpstreamAreThoseHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ship := new(sea)
		tags := freshness
		tags.Offline = ship.offline
		s := openStore(t, t.TempDir(), Options{Tags: tags})
		img, unknown := newImage("a"), newImage("b")
		sig, only := signature(img, "one"), referrer(signature(img, "only listed"), "only listed")
		l := &lister{list: []ocispec.Descriptor{only}}
		pullTag(t, s, team, "v1", img)
		wantList(t, s, img, l, Miss, 1, only)
		pullDigest(t, s, team, sig)
		wantList(t, s, img, l, Hit, 0, only)

		ship.now = true
		wantList(t, s, img, l, Hit, 0, only, referrer(sig, "one"))
		pass(2 * freshness.StaleIfError)
		wantList(t, s, img, l, Hit, 0, only, referrer(sig, "one"))
		offline := errPostponed{errors.New("the upstream is offline")}
		wantNoList(t, s, unknown, &lister{err: offline}, Miss, 1, offline)

		ship.now, ship.last = false, time.Now()
		wantList(t, s, img, &lister{err: errDown}, Stale, 1, only, referrer(sig, "one")) // the link is back, and bad
		wantList(t, s, unknown, &lister{}, Miss, 1)                                      // nothing was remembered
		pass(freshness.StaleIfError)
		wantList(t, s, img, &lister{err: errDown}, Stale, 1, referrer(sig, "one"))
	})
}

func TestReferrersOfOtherRepositoriesTakeNoPlace(t *testing.T) {
	opts := Options{Tags: freshness}
	opts.Tags.Offline = func(string) (bool, time.Time) { return true, time.Time{} }
	s := openStore(t, t.TempDir(), opts)
	img := newImage("a")
	own := signature(img, "own")
	pullDigest(t, s, team, img)
	pullDigest(t, s, team, own)
	others := 0
	for i := 0; others < maxReferrersHere; i++ {
		d := digest.FromString(fmt.Sprint(i))
		if d > own.Digest { // they come first, in the order of their digests
			continue
		}
		others++
		rec := records.Blob{Size: 1, MediaType: ocispec.MediaTypeImageManifest, Subject: img.Digest}
		member := records.Member{Size: 1, Manifest: true, Role: records.ManifestOnly, Proven: records.Proven}
		if err := s.index.PutManifest(claims, d, rec, map[digest.Digest]records.Member{d: member}); err != nil {
			t.Fatal(err)
		}
	}
	wantList(t, s, img, &lister{err: errDown}, Hit, 0, referrer(own, "own"))
}
