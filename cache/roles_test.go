package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// says is an upstream that has a digest as a blob of ten bytes: distribution says so of each
// manifest.
func says(asked *int) func(context.Context) (int64, error) {
	return func(context.Context) (int64, error) {
		*asked++
		return 10, nil
	}
}

func wantNoBlob(t *testing.T, s *Store, what string, d digest.Digest) {
	t.Helper()
	asked := 0
	if _, err := s.Holds(t.Context(), team, d, says(&asked)); !errors.Is(err, fs.ErrNotExist) || asked > 0 {
		t.Errorf("%s as a blob: %v, asked %d times", what, err, asked)
	}
	if blob := s.BlobHere(team, d); blob != nil {
		blob.Close()
		t.Errorf("%s is served as a blob", what)
	}
}

func wantBlob(t *testing.T, s *Store, what string, d digest.Digest) {
	t.Helper()
	asked := 0
	if _, err := s.Holds(t.Context(), team, d, says(&asked)); err != nil || asked > 0 {
		t.Errorf("%s as a blob: %v, asked %d times", what, err, asked)
	}
}

func TestManifestIsNoBlobOfItsRepository(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{})
	child := newImage("child")
	list := newList(child)
	asked := 0
	if _, err := s.Holds(t.Context(), team, list.Digest, says(&asked)); err != nil || asked != 1 {
		t.Errorf("a digest that is not known yet: %v, asked %d times", err, asked)
	}
	pullDigest(t, s, team, list)
	wantNoBlob(t, s, "an index", list.Digest)
	wantNoBlob(t, s, "a manifest that an index names", child.Digest)
	pullDigest(t, s, team, child)
	closeStore(t, s)
	s = openStore(t, dir, Options{})
	wantNoBlob(t, s, "an index, after a restart", list.Digest)
	wantNoBlob(t, s, "a manifest, after a restart", child.Digest)
}

func TestManifestThatIsNamedAsALayerIsABlobToo(t *testing.T) {
	inner := newImage("inner")
	layer := &filltest.Origin{Digest: inner.Digest, Content: inner.Raw}
	outer := newImage("outer", layer)
	for _, order := range [][]*image{{inner, outer}, {outer, inner}} {
		s := openStore(t, t.TempDir(), Options{})
		for _, img := range order {
			pullDigest(t, s, team, img)
		}
		wantBlob(t, s, "a manifest that is a layer", inner.Digest)
		if _, ok := s.ManifestHere(team, inner.Digest); !ok {
			t.Error("it is no manifest any more")
		}
		if rec, err := s.member(team, inner.Digest); err != nil || !rec.Manifest || rec.Role != records.ManifestAndBlob {
			t.Errorf("%+v, %v", rec, err)
		}
		if _, err := s.index.Resolve(records.Pin{Repository: team, Reference: inner.Digest.String()}); err != nil {
			t.Errorf("it cannot be pinned: %v", err)
		}
	}
}

// A folder of an earlier release may have a layer of a BuildKit cache as a manifest.
func TestManifestOfAnEarlierReleaseMayBeABlob(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	d := digest.FromString("a layer")
	if err := s.index.PutMember(team, d, records.Member{Size: 10, Manifest: true}); err != nil {
		t.Fatal(err)
	}
	asked := 0
	if _, err := s.Holds(t.Context(), team, d, says(&asked)); err != nil || asked != 1 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	wantBlob(t, s, "what the upstream has confirmed", d)
}

// BuildKit exports its cache as an index of layers and a configuration.
func TestEntriesOfABuildCacheAreBlobs(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	layer, config := filltest.New(1000, 1), filltest.New(100, 2)
	cache := newIndex(
		fmt.Sprintf(`{"mediaType": %q, "digest": %q, "size": 1000}`, ocispec.MediaTypeImageLayerGzip, layer.Digest),
		fmt.Sprintf(`{"mediaType": "application/vnd.buildkit.cacheconfig.v0", "digest": %q, "size": 100}`, config.Digest))
	pullTag(t, s, team, "v1", cache, layer)
	wantBlob(t, s, "a layer of a build cache", layer.Digest)
	wantBlob(t, s, "its configuration", config.Digest)
	if listed(t, s)[team.String()+":v1"].Complete {
		t.Error("one of two entries counts as complete")
	}
	pullLayers(t, s, config)
	if !listed(t, s)[team.String()+":v1"].Complete {
		t.Error("all entries count as incomplete")
	}
}

func TestIndexIsNotCompleteByItsAttestation(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	layer, statement := filltest.New(1000, 1), filltest.New(100, 2)
	img, attestation := newImage("image", layer), newImage("attestation", statement)
	soci := newImage("soci", statement)
	list := newIndex(
		fmt.Sprintf(`{"mediaType": %q, "digest": %q, "size": 1, "platform": {"os": "linux", "architecture": "arm64"}}`, img.MediaType, img.Digest),
		fmt.Sprintf(`{"mediaType": %q, "digest": %q, "size": 1, "platform": {"os": "unknown", "architecture": "unknown"}}`, img.MediaType, attestation.Digest),
		fmt.Sprintf(`{"mediaType": %q, "digest": %q, "size": 1, "artifactType": "application/vnd.amazon.soci.index.v2+json", "platform": {"os": "linux"}}`, img.MediaType, soci.Digest))
	pullTag(t, s, team, "v1", list)
	pullDigest(t, s, team, attestation, statement)
	pullDigest(t, s, team, soci)
	pullDigest(t, s, team, img)
	if listed(t, s)[team.String()+":v1"].Complete {
		t.Error("complete without the image's layer")
	}
	pullLayers(t, s, layer)
	if !listed(t, s)[team.String()+":v1"].Complete {
		t.Error("incomplete with the image's layer")
	}
}

func TestIndexWithoutPlatformsNeedsAllOfItsEntries(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	layers := []*filltest.Origin{filltest.New(1000, 1), filltest.New(1000, 2)}
	charts := []*image{newImage("one", layers[0]), newImage("two", layers[1])}
	list := newIndex(
		fmt.Sprintf(`{"mediaType": %q, "digest": %q, "size": 1}`, charts[0].MediaType, charts[0].Digest),
		fmt.Sprintf(`{"mediaType": %q, "digest": %q, "size": 1}`, charts[1].MediaType, charts[1].Digest))
	pullTag(t, s, team, "v1", list)
	for i, want := range []bool{false, true} {
		pullDigest(t, s, team, charts[i], layers[i])
		if got := listed(t, s)[team.String()+":v1"].Complete; got != want {
			t.Errorf("with %d of 2 entries complete is %t", i+1, got)
		}
	}
}

// A record of an earlier release does not tell which of its entries are platforms.
func TestIndexOfAnEarlierReleaseIsCompleteWithAnyEntry(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Tags: freshness})
	layer := filltest.New(1000, 1)
	img := newImage("image", layer)
	list := newList(img, newImage("other"))
	pullTag(t, s, team, "v1", list)
	pullDigest(t, s, team, img, layer)
	rec, err := s.index.Blob(list.Digest)
	if err != nil || len(rec.Platforms) != 2 {
		t.Fatalf("%+v, %v", rec, err)
	}
	rec.Platforms, rec.NeedsAll = nil, false
	if err := s.index.PutBlob(list.Digest, rec); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = openStore(t, dir, Options{Tags: freshness})
	if !listed(t, s)[team.String()+":v1"].Complete {
		t.Error("incomplete with one entry")
	}
	if _, state, err := s.Tag(t.Context(), team, "v1", dead); err != nil || state == Miss {
		t.Errorf("%s, %v without the upstream", state, err)
	}
}

func TestSecondTagOfAnImageLeavesItsMemberships(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	layer := filltest.New(1000, 1)
	img := newImage("a", layer)
	pullTag(t, s, team, "v1", img, layer)
	settle(t, s)
	digests := []digest.Digest{img.Digest, layer.Digest}
	var before []membership
	for _, d := range digests {
		rec, err := s.member(team, d)
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, rec)
	}
	pullTag(t, s, team, "v2", img)
	settle(t, s)
	for i, d := range digests {
		if rec, err := s.member(team, d); err != nil || rec != before[i] {
			t.Errorf("the membership is %+v after a second tag, %v, and was %+v", rec, err, before[i])
		}
	}
}
