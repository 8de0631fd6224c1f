package cache

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hold brings an image into the cache, its layers too.
func hold(t *testing.T, s *Store, repo Repository, tag string, img *image, layers ...*origin) {
	t.Helper()
	if _, _, err := s.Tag(t.Context(), repo, tag, img.ask); err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		pull(t, s, l)
		settle(s)
	}
}

// evicted evicts n items and returns which ones went.
func evicted(t *testing.T, s *Store, n int) []digest.Digest {
	t.Helper()
	var gone []digest.Digest
	for range n {
		d, _, _ := s.recency.first()
		if err := evictNow(s, 1); err != nil {
			t.Fatal(err)
		}
		gone = append(gone, d)
	}
	return gone
}

func TestExpiredImagesGoFirstTheOldestExpiryBeforeTheOthers(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	base := newOrigin(1000, 1)
	own := []*origin{newOrigin(1000, 2), newOrigin(1000, 3), newOrigin(1000, 4)}
	var images []*image
	for i, l := range own {
		img := newImage(fmt.Sprint(i), base, l)
		images = append(images, img)
		hold(t, s, team, fmt.Sprint("v", i), img, base, l)
	}
	now := time.Now()
	err := s.Doom([]Expired{
		{team, images[1].Digest, now.Add(-time.Hour)},
		{team, images[2].Digest, now.Add(-2 * time.Hour)},
		{team, digest.FromString("not here"), now},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []digest.Digest{images[2].Digest, own[2].digest, images[1].Digest, own[1].digest, images[0].Digest}
	if gone := evicted(t, s, 5); !slices.Equal(gone, want) {
		t.Errorf("gone: %v, want %v", gone, want)
	}
}

func TestExpiredImageThatIsUsedStays(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	layers := []*origin{newOrigin(1000, 1), newOrigin(1000, 2)}
	old, young := newImage("old", layers[0]), newImage("young", layers[1])
	hold(t, s, team, "old", old, layers[0])
	hold(t, s, team, "young", young, layers[1])
	if err := s.Doom([]Expired{{team, old.Digest, time.Now()}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Manifest(t.Context(), team, old.Digest, dead); err != nil {
		t.Fatal(err)
	}
	if gone := evicted(t, s, 2); !slices.Equal(gone, []digest.Digest{young.Digest, layers[1].digest}) {
		t.Errorf("gone: %v", gone)
	}
}

func TestImageThatHasExpiredInOneRepositoryOnlyStays(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	img, younger := newImage("a"), newImage("b")
	hold(t, s, team, "v1", img)
	hold(t, s, other, "v1", img)
	hold(t, s, team, "v2", younger)
	if err := s.Doom([]Expired{{team, img.Digest, time.Now()}}); err != nil {
		t.Fatal(err)
	}
	if _, expired, _ := s.recency.first(); expired {
		t.Error("it goes, though the other repository keeps it")
	}
	if err := s.Doom([]Expired{{team, img.Digest, time.Now()}, {other, img.Digest, time.Now()}}); err != nil {
		t.Fatal(err)
	}
	if d, expired, _ := s.recency.first(); !expired || d != img.Digest {
		t.Error("it stays, though no repository keeps it")
	}
	if err := s.Doom(nil); err != nil {
		t.Fatal(err)
	}
	if _, expired, _ := s.recency.first(); expired {
		t.Error("it goes, though the policy was taken back")
	}
}

func TestExpiredIndexTakesItsPlatformsAlong(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	layer := newOrigin(1000, 1)
	platform := newImage("platform", layer)
	raw := fmt.Appendf(nil, `{"mediaType": %q, "manifests": [{"digest": %q, "size": %d}]}`,
		ocispec.MediaTypeImageIndex, platform.Digest, platform.Size)
	index := &image{Manifest: Manifest{Digest: digest.FromBytes(raw), MediaType: ocispec.MediaTypeImageIndex, Size: int64(len(raw)), Raw: raw}}
	hold(t, s, team, "v1", index)
	if _, _, err := s.Manifest(t.Context(), team, platform.Digest, platform.ask); err != nil {
		t.Fatal(err)
	}
	pull(t, s, layer)
	settle(s)
	hold(t, s, team, "v2", newImage("other"))
	if err := s.Doom([]Expired{{team, index.Digest, time.Now()}}); err != nil {
		t.Fatal(err)
	}
	if gone := evicted(t, s, 3); !slices.Equal(gone, []digest.Digest{index.Digest, platform.Digest, layer.digest}) {
		t.Errorf("gone: %v", gone)
	}
	if _, expired, _ := s.recency.first(); expired {
		t.Error("another image goes too")
	}
}

func TestRepositoriesAreThoseWithTags(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	port := Repository{"registry.example:5000", "a/b"}
	for _, repo := range []Repository{port, team, other} {
		for _, tag := range []string{"v1", "v2"} {
			hold(t, s, repo, tag, newImage("a"))
		}
	}
	all, err := s.Repositories()
	if err != nil || len(all) != 3 || !slices.Contains(all, port) || !slices.Contains(all, team) || !slices.Contains(all, other) {
		t.Errorf("%v, %v", all, err)
	}
}
