package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/records"
)

// tidyNow removes what nothing needs, as the store does within a minute.
func tidyNow(t *testing.T, s *Store) records.Tidied {
	t.Helper()
	if err := s.awaitLoaded(); err != nil {
		t.Fatal(err)
	}
	found, err := s.removeUnneeded(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// platforms is an index of this many images, of which one is pulled.
func platforms(n int) (index, pulled *image, layer *filltest.Origin) {
	layer = filltest.New(1000, 1)
	pulled = newImage("pulled", layer)
	entries := ""
	for i := range n {
		d := pulled.Digest
		if i > 0 {
			d = digest.FromString(fmt.Sprint("platform ", i))
			entries += ","
		}
		entries += fmt.Sprintf(`{"mediaType": %q, "digest": %q, "size": %d, "platform": {"os": "linux", "architecture": "a%d"}}`,
			ocispec.MediaTypeImageManifest, d, pulled.Size, i)
	}
	return newDocument(ocispec.MediaTypeImageIndex, `{"manifests": [`+entries+`]}`), pulled, layer
}

func pullPlatform(t *testing.T, s *Store, index, pulled *image, layer *filltest.Origin) {
	t.Helper()
	pullTag(t, s, team, "v1", index)
	if _, _, err := s.Manifest(t.Context(), team, pulled.Digest, pulled.ask); err != nil {
		t.Fatal(err)
	}
	addToRepository(t, s, team, layer)
}

func TestEvictedImageLeavesNoRecord(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	before := tidyNow(t, s).Bytes
	index, pulled, layer := platforms(12)
	pullPlatform(t, s, index, pulled, layer)
	s.recordUses()
	if now := tidyNow(t, s); now.Removed > 0 || len(listed(t, s)) != 1 {
		t.Errorf("of an image that is here, %d records were removed", now.Removed)
	}
	evictAll(t, s)
	if now := tidyNow(t, s); now.Bytes != before {
		t.Errorf("records of %d bytes are left, and %d were there before", now.Bytes, before)
	}
	if all := listed(t, s); len(all) > 0 {
		t.Errorf("listed: %v", all)
	}
	if _, known := s.tag(tagID{team, "v1"}); known {
		t.Error("the tag is still known")
	}
	pullPlatform(t, s, index, pulled, layer) // it can come back
	if all := listed(t, s); len(all) != 1 || !all[team.String()+":v1"].Complete {
		t.Errorf("listed: %v", all)
	}
}

func TestPinnedImageKeepsItsRecords(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Tags: freshness})
	index, pulled, layer := platforms(12)
	pullPlatform(t, s, index, pulled, layer)
	if err := s.PinAllPlatforms(team, "v1"); err != nil {
		t.Fatal(err)
	}
	missing, err := s.MissingPinned()
	if err != nil || len(missing) != 11 {
		t.Fatalf("%d platforms are to be fetched, %v", len(missing), err)
	}
	evictAll(t, s)
	for _, what := range []string{"open", "opened again"} {
		if found := tidyNow(t, s); found.Removed > 0 {
			t.Errorf("%s: %d records were removed", what, found.Removed)
		}
		if again, err := s.MissingPinned(); err != nil || len(again) != 11 || again[0].Size != pulled.Size {
			t.Errorf("%s: %d platforms are to be fetched, %v", what, len(again), err)
		}
		closeStore(t, s)
		s = openStore(t, dir, Options{Tags: freshness})
	}
	if err := s.Unpin(team, "v1"); err != nil {
		t.Fatal(err)
	}
	evictAll(t, s)
	if tidyNow(t, s); len(listed(t, s)) > 0 {
		t.Error("the image is listed")
	}
}

func TestInterruptedDownloadKeepsItsMembership(t *testing.T) {
	dir := t.TempDir()
	o := filltest.New(9<<20, 9)
	interrupt(t, dir, o)
	s := openStore(t, dir, Options{})
	confirm := func(context.Context) (int64, error) { return int64(len(o.Content)), nil }
	if _, err := s.Holds(t.Context(), team, o.Digest, confirm); err != nil {
		t.Fatal(err)
	}
	if found := tidyNow(t, s); found.Removed > 0 {
		t.Errorf("%d records were removed", found.Removed)
	}
}

// A client can ask whether blobs exist that it never fetches.
func TestBlobsThatNobodyFetchesLeaveNoRecord(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	before := tidyNow(t, s).Bytes
	for i := range 500 {
		if _, err := s.Holds(t.Context(), team, digest.FromString(fmt.Sprint(i)), func(context.Context) (int64, error) { return 5, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if now := tidyNow(t, s); now.Bytes != before {
		t.Errorf("%+v", now)
	}
	if _, err := s.member(team, digest.FromString("7")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still known: %v", err)
	}
}

func TestStoreTidiesItsIndexAtTheStartAndAfterEvictions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir, Options{Tags: freshness})
		index, pulled, layer := platforms(12)
		pullPlatform(t, s, index, pulled, layer)
		evictAll(t, s) // leaves the tag and the memberships, as an earlier release did for good
		closeStore(t, s)
		s = openStore(t, dir, Options{Tags: freshness})
		pass(time.Second)
		if tags := tagsOf(t, s, team); len(tags) > 0 {
			t.Errorf("a second after the start: %v", tags)
		}
		pullPlatform(t, s, index, pulled, layer)
		pass(2 * tick)
		if tags := tagsOf(t, s, team); len(tags) != 1 {
			t.Errorf("of an image that is here: %v", tags)
		}
		evictAll(t, s)
		pass(2 * tick)
		if tags := tagsOf(t, s, team); len(tags) > 0 {
			t.Errorf("a minute after the eviction: %v", tags)
		}
		closeStore(t, s)
	})
}

// manyLayers is an image that names the largest number of layers.
func manyLayers(name string) *image {
	layers := make([]*filltest.Origin, manifest.MaxChildren-1)
	for i := range layers {
		layers[i] = &filltest.Origin{Digest: digest.FromString(fmt.Sprint(name, i))}
	}
	return newImage(name, layers...)
}

func TestManifestsThatNameMuchStayWithinTheBoundOfTheIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		opts := Options{Tags: freshness, MaxSize: 256 << 20}
		s := openStore(t, dir, opts)
		layer, blob := filltest.New(20_000, 1), filltest.New(1<<20, 2)
		img, pinned := newImage("a", layer), manyLayers("pinned")
		pullTag(t, s, team, "v1", img)
		addToRepository(t, s, team, layer)
		addToRepository(t, s, team, blob)
		pullTag(t, s, team, "pinned", pinned)
		if err := s.Pin(team, "pinned"); err != nil {
			t.Fatal(err)
		}
		kept := 0
		for i := range 12 {
			bomb := manyLayers(fmt.Sprint("bomb ", i))
			if _, _, err := s.Manifest(t.Context(), other, bomb.Digest, bomb.ask); err != nil {
				t.Fatal(err)
			}
			if _, err := s.index.Blob(bomb.Digest); err == nil {
				kept++
			}
		}
		if n := s.index.Bytes(); kept < 2 || kept > 8 || n > 16<<20 {
			t.Errorf("%d manifests were kept, and the records take %d", kept, n)
		}
		closeStore(t, s)

		opts.maxRecords = 6 << 20 // the bound has become smaller
		s = openStore(t, dir, opts)
		pass(time.Second)
		if n := s.index.Bytes(); n > opts.maxRecords {
			t.Errorf("the records take %d", n)
		}
		for _, d := range []digest.Digest{img.Digest, layer.Digest, blob.Digest, pinned.Digest} {
			if _, err := s.Stat(d); err != nil {
				t.Errorf("what was there before, or is pinned: %v", err)
			}
		}
		if diff := cmp.Diff([]string{"pinned", "v1"}, tagsOf(t, s, team)); diff != "" {
			t.Error(diff)
		}
		closeStore(t, s)

		opts.maxRecords = 1
		s = openStore(t, dir, opts)
		small := newImage("small", filltest.New(10, 5)) // is kept even if the bound is reached
		if _, _, err := s.Manifest(t.Context(), other, small.Digest, small.ask); err != nil {
			t.Fatal(err)
		}
		if _, err := s.index.Blob(small.Digest); err != nil {
			t.Error(err)
		}
		closeStore(t, s)
	})
}

func tagsOf(t *testing.T, s *Store, repo Repository) []string {
	t.Helper()
	tags, err := s.Tags(repo)
	if err != nil {
		t.Fatal(err)
	}
	return tags
}
