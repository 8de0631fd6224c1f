package cache

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
)

// gone is an upstream that has nothing.
func gone(context.Context, string, bool) (Manifest, error) { return Manifest{}, fs.ErrNotExist }

// hasManifest reports whether a manifest is served without the upstream.
func hasManifest(t *testing.T, s *Store, repo Repository, img *image) bool {
	t.Helper()
	m, ok := s.ManifestHere(repo, img.Digest)
	if ok && string(m.Raw) != string(img.Raw) {
		t.Error("it is another manifest")
	}
	return ok
}

// hasBlob reports whether a blob is served without the upstream.
func hasBlob(t *testing.T, s *Store, repo Repository, o *filltest.Origin) bool {
	t.Helper()
	blob := s.BlobHere(repo, o.Digest)
	if blob == nil {
		return false
	}
	defer blob.Close()
	o.Compare(t, blob, 0, int64(len(o.Content)))
	return true
}

func TestManifestThatAnIndexOfAnotherUpstreamNamesIsServedOnlyWhenDelivered(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	img := newImage("secret", filltest.New(1000, 1))
	pullDigest(t, s, victim, img)
	pullDigest(t, s, claims, newList(img))
	if hasManifest(t, s, claims, img) {
		t.Error("it is served by the word of an index")
	}
	if m, _, err := s.Manifest(t.Context(), claims, img.Digest, gone); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an upstream that does not have it: %+v, %v", m, err)
	}
	if _, err := s.Size(claims, img.Digest); err == nil {
		t.Error("its size is told")
	}
	pullDigest(t, s, claims, img)
	for range 2 {
		if !hasManifest(t, s, claims, img) {
			t.Error("it is not served where it was delivered")
		}
		closeStore(t, s)
		s = openStore(t, dir, Options{})
	}
}

func TestManifestThatATagOfAnotherUpstreamNamesIsServedOnlyWhenDelivered(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	img, own := newImage("secret"), newImage("own")
	pullDigest(t, s, victim, img)
	pullTag(t, s, claims, "v1", own)
	head := func(img *image, then Ask) Ask {
		return func(ctx context.Context, reference string, head bool) (Manifest, error) {
			if head {
				return Manifest{Digest: img.Digest, MediaType: img.MediaType, Size: img.Size}, nil
			}
			return then(ctx, reference, head)
		}
	}
	if m, _, err := s.Tag(t.Context(), claims, "v1", head(img, gone)); err == nil && m.Digest == img.Digest {
		t.Error("it is served by the word of a HEAD")
	}
	if m, _, err := s.Tag(t.Context(), claims, "v1", head(img, own.ask)); err != nil || m.Digest != own.Digest {
		t.Errorf("%s, %v", m.Digest, err)
	}
	if m, _, err := s.Tag(t.Context(), claims, "v1", head(img, img.ask)); err != nil || m.Digest != img.Digest {
		t.Errorf("where it is delivered: %s, %v", m.Digest, err)
	}
	pullTag(t, s, sibling, "v1", own)
	if m, _, err := s.Tag(t.Context(), sibling, "v1", head(img, gone)); err != nil || m.Digest != img.Digest {
		t.Errorf("in another repository of the same upstream: %s, %v", m.Digest, err)
	}
}

func TestHiddenRepositoryIsNoProofForOthersOfItsUpstream(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{NeedsProof: func(upstream string) bool { return upstream == victim.Upstream }})
	layer := filltest.New(1000, 1)
	img := newImage("secret", layer)
	pullDigest(t, s, victim, img)
	pullFor(t, s, victim, layer)
	settle(t, s)
	pullDigest(t, s, sibling, newList(img))
	if hasManifest(t, s, sibling, img) {
		t.Error("the manifest is served by the word of an index")
	}
	pullDigest(t, s, sibling, img)
	if hasBlob(t, s, sibling, layer) {
		t.Error("the layer is served by the word of a manifest")
	}
	before, _ := layer.Total()
	if state := pullFor(t, s, sibling, layer); state != Hit {
		t.Error(state)
	}
	if after, _ := layer.Total(); after > before+64 {
		t.Errorf("%d bytes were fetched", after-before)
	}
	if !hasBlob(t, s, sibling, layer) {
		t.Error("the layer is not served where its storage has confirmed it")
	}
}

// What is fetched without a client is to be served later, perhaps without its upstream.
func TestFetchOfACachedBlobProvesIt(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	layer := filltest.New(1000, 1)
	pullFor(t, s, victim, layer)
	settle(t, s)
	liar := newSite("", 1000).always(filltest.Act{Err: fs.ErrNotExist}).as(s, claims)
	if _, err := s.Fetch(t.Context(), layer.Digest, liar.source); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an upstream that does not have it: %v", err)
	}
	if n, err := s.Fetch(t.Context(), layer.Digest, sourceOf(s, Repository{Upstream: "honest.test", Name: "app"}, layer)); n != 0 || err != nil {
		t.Errorf("fetched %d bytes, %v", n, err)
	}
	if !hasBlob(t, s, Repository{Upstream: "honest.test", Name: "app"}, layer) {
		t.Error("it is not served")
	}
}

func TestReferrerIsNotListedByTheWordOfAnotherUpstream(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	img := newImage("image")
	sig := signature(img, "secret")
	pullDigest(t, s, victim, sig)
	pullDigest(t, s, claims, newList(sig))
	down := &lister{err: errDown}
	if list, _, err := s.Referrers(t.Context(), claims, img.Digest, down.ask); err == nil {
		t.Errorf("%+v", list)
	}
	if list, _, err := s.Referrers(t.Context(), victim, img.Digest, down.ask); err != nil || len(list) != 1 {
		t.Errorf("where it came from: %+v, %v", list, err)
	}
}

// What vouched for a repository may be removed.
func TestWordWithinOneUpstreamStaysGood(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	layer := filltest.New(1000, 1)
	img := newImage("image", layer)
	pullTag(t, s, victim, "v1", img)
	pullFor(t, s, victim, layer)
	settle(t, s)
	pullTag(t, s, sibling, "v1", img)
	if _, err := s.Remove(victim, "v1"); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = openStore(t, dir, Options{})
	if !hasBlob(t, s, sibling, layer) || hasBlob(t, s, victim, layer) {
		t.Error("the layer is served to the wrong repositories")
	}
}

func TestEvictionEndsAllMemberships(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	layer := filltest.New(1000, 1)
	pullFor(t, s, victim, layer)
	settle(t, s)
	pullFor(t, s, claims, layer)
	if !hasBlob(t, s, claims, layer) {
		t.Fatal("the layer is not served where its storage has confirmed it")
	}
	if err := evictNow(s, 1); err != nil {
		t.Fatal(err)
	}
	pullFor(t, s, victim, layer)
	settle(t, s)
	if hasBlob(t, s, claims, layer) {
		t.Error("the layer is served where only its predecessor was confirmed")
	}
}

// earlier makes the folder of a closed store one of the release that did not record proofs, or
// one to which that release has returned.
func earlier(t *testing.T, dir string) {
	t.Helper()
	s := openStore(t, dir, Options{ScrubEvery: -1})
	loaded(t, s)
	all := make(map[RepoDigest]records.Member)
	if err := s.index.EachMember(func(digest.Digest) bool { return true }, func(of RepoDigest, rec records.Member) error {
		rec.Proven = records.NotTold
		all[of] = rec
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for of, rec := range all {
		if err := s.index.PutMember(of.Repository, of.Digest, rec); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
}

// Where the clients' own rights decide, a record that does not tell what was proven is worth nothing.
func TestFolderOfAnEarlierReleaseProvesNothingWhereClientsRightsDecide(t *testing.T) {
	dir := t.TempDir()
	opts := Options{ScrubEvery: -1, NeedsProof: func(string) bool { return true }, OnlyProven: func(upstream string) bool { return upstream == victim.Upstream }}
	layer := filltest.New(100_000, 1)
	img := newImage("image", layer)
	s := openStore(t, dir, opts)
	for _, repo := range []Repository{victim, claims} {
		pullTag(t, s, repo, "v1", img)
		pullFor(t, s, repo, layer)
	}
	settle(t, s)
	closeStore(t, s)
	earlier(t, dir)
	s = openStore(t, dir, opts)
	if hasBlob(t, s, victim, layer) {
		t.Error("the layer is served by the word of an earlier release")
	}
	if !hasBlob(t, s, claims, layer) {
		t.Error("the layer is not served where the node's rights decide")
	}
	before, _ := layer.Total()
	if state := pullFor(t, s, victim, layer); state != Hit {
		t.Error(state)
	}
	if after, _ := layer.Total(); after > before+64 || !hasBlob(t, s, victim, layer) {
		t.Errorf("%d bytes were fetched, and the layer is served: %t", after-before, hasBlob(t, s, victim, layer))
	}
}

// There is no upstream: nothing may stop being served because Larder is another release.
func TestFolderOfAnEarlierReleaseIsServedAsBefore(t *testing.T) {
	dir := t.TempDir()
	opts := Options{Tags: Freshness{StaleIfError: time.Hour}, ScrubEvery: -1, NeedsProof: func(string) bool { return true }}
	layer := filltest.New(100_000, 1)
	img := newImage("image", layer)
	list := newList(img)
	repos := []Repository{victim, sibling, claims}
	s := openStore(t, dir, opts)
	for _, repo := range repos {
		pullTag(t, s, repo, "v1", list)
		pullDigest(t, s, repo, img)
	}
	pullFor(t, s, victim, layer)
	settle(t, s)
	closeStore(t, s)
	check := func(when string) {
		t.Helper()
		s = openStore(t, dir, opts)
		for _, repo := range repos {
			if m, _, err := s.Tag(t.Context(), repo, "v1", dead); err != nil || m.Digest != list.Digest {
				t.Errorf("%s, %s: %s, %v", when, repo, m.Digest, err)
			}
			if !hasManifest(t, s, repo, img) || !hasBlob(t, s, repo, layer) {
				t.Errorf("%s, %s: not all of the image is served", when, repo)
			}
		}
		closeStore(t, s)
	}
	earlier(t, dir)
	check("after the upgrade")
	check("after a restart")
	if err := os.RemoveAll(s.folder.Index()); err != nil {
		t.Fatal(err)
	}
	check("by its snapshot")
	earlier(t, dir)
	check("back and forward again")
}

func TestWordOfAnEarlierReleaseDoesNotCoverWhatComesLater(t *testing.T) {
	dir := t.TempDir()
	layer := filltest.New(100_000, 1)
	img := newImage("image", layer)
	s := openStore(t, dir, Options{})
	pullDigest(t, s, claims, newList(img))
	pullDigest(t, s, claims, newImage("lie", layer))
	closeStore(t, s)
	earlier(t, dir)
	s = openStore(t, dir, Options{})
	if known, err := s.member(claims, layer.Digest); err != nil || !known.served { // so that it is in memory
		t.Errorf("%+v, %v", known, err)
	}
	pullDigest(t, s, victim, img)
	pullFor(t, s, victim, layer)
	settle(t, s)
	for range 2 {
		if hasManifest(t, s, claims, img) {
			t.Error("a manifest is served that came from another upstream")
		}
		if hasBlob(t, s, claims, layer) {
			t.Error("a blob is served that came from another upstream")
		}
		closeStore(t, s)
		s = openStore(t, dir, Options{})
	}
}

func TestDamagedBlobOfAnEarlierReleaseStaysInItsRepositories(t *testing.T) {
	dir := t.TempDir()
	layer := filltest.New(100_000, 1)
	s := openStore(t, dir, small)
	pullFor(t, s, victim, layer)
	settle(t, s)
	pullFor(t, s, claims, layer)
	closeStore(t, s)
	earlier(t, dir)
	s = openStore(t, dir, small)
	loaded(t, s)
	flip(t, s, layer.Digest, 70_000)
	s.blobs.Distrust(layer.Digest)
	eventually(t, "the damaged blob is removed", func() bool {
		_, err := os.Lstat(s.folder.Blob(layer.Digest))
		return err != nil
	})
	pullFor(t, s, victim, layer)
	settle(t, s)
	if !hasBlob(t, s, claims, layer) {
		t.Error("the blob is not served any more")
	}
}

// sought returns what the store wants proofs of.
func sought(s *Store) []Unproven {
	var all []Unproven
	for {
		select {
		case u := <-s.Unproven():
			all = append(all, u)
		default:
			return all
		}
	}
}

// searched returns what a search finds.
func searched(t *testing.T, s *Store) []Unproven {
	t.Helper()
	var all []Unproven
	if err := s.EachUnproven(func(u Unproven) bool { all = append(all, u); return true }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestProofsAreSoughtForWhatAManifestNamesAndTheCacheHas(t *testing.T) {
	dir := t.TempDir()
	here, coming := filltest.New(1000, 1), filltest.New(1000, 2)
	img := newImage("image", here, coming)
	s := openStore(t, dir, Options{})
	loaded(t, s)
	pullDigest(t, s, victim, img)
	pullFor(t, s, victim, here)
	settle(t, s)
	pullDigest(t, s, sibling, img)
	if all := sought(s); len(all) > 0 {
		t.Errorf("within one upstream: %v", all)
	}
	list := newList(img)
	pullDigest(t, s, claims, list)
	want := []Unproven{{RepoDigest{Repository: claims, Digest: img.Digest}, true}}
	if all := sought(s); !slices.Equal(all, want) {
		t.Errorf("an index that names a manifest: %v", all)
	}
	pullDigest(t, s, claims, img)
	layer := Unproven{RepoDigest{Repository: claims, Digest: here.Digest}, false}
	if all := sought(s); !slices.Equal(all, []Unproven{layer}) {
		t.Errorf("a manifest that names layers: %v", all)
	}
	pullFor(t, s, victim, coming)
	settle(t, s)
	late := Unproven{RepoDigest{Repository: claims, Digest: coming.Digest}, false}
	if all := sought(s); !slices.Equal(all, []Unproven{late}) {
		t.Errorf("a layer that comes later: %v", all)
	}
	closeStore(t, s)
	s = openStore(t, dir, Options{})
	if all := searched(t, s); len(all) != 2 || !slices.Contains(all, layer) || !slices.Contains(all, late) {
		t.Errorf("after a restart: %v", all)
	}
	pullFor(t, s, claims, here)
	if all := searched(t, s); !slices.Equal(all, []Unproven{late}) || s.IsUnproven(layer) || !s.IsUnproven(late) {
		t.Errorf("after a proof: %v", all)
	}
}

// Within one upstream a proof would tell nothing new.
func TestProofsOfAnEarlierReleaseAreSoughtWhereTheyTellMore(t *testing.T) {
	one, both := filltest.New(1000, 1), filltest.New(1000, 2)
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	for _, repo := range []Repository{victim, sibling} {
		pullDigest(t, s, repo, newImage("one", one))
	}
	pullDigest(t, s, victim, newImage("both", both))
	pullDigest(t, s, claims, newImage("both", both))
	for _, o := range []*filltest.Origin{one, both} {
		pullFor(t, s, victim, o)
		settle(t, s)
	}
	closeStore(t, s)
	earlier(t, dir)
	for _, c := range []struct {
		needsProof bool
		want       []RepoDigest
	}{
		{false, []RepoDigest{{Repository: victim, Digest: both.Digest}, {Repository: claims, Digest: both.Digest}}},
		{true, []RepoDigest{{Repository: victim, Digest: both.Digest}, {Repository: claims, Digest: both.Digest}, {Repository: victim, Digest: one.Digest}, {Repository: sibling, Digest: one.Digest}}},
	} {
		s = openStore(t, dir, Options{NeedsProof: func(string) bool { return c.needsProof }})
		all := searched(t, s)
		for _, want := range c.want {
			if !slices.Contains(all, Unproven{want, false}) {
				t.Errorf("%v is not among them", want)
			}
		}
		if len(all) != len(c.want) {
			t.Errorf("%v", all)
		}
		closeStore(t, s)
	}
}
