package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// newList returns an index of images.
func newList(platforms ...*image) *image {
	var list []string
	for _, p := range platforms {
		list = append(list, fmt.Sprintf(`{"mediaType": %q, "digest": %q, "size": %d, "platform": {"os": "linux"}}`, p.MediaType, p.Digest, p.Size))
	}
	return newIndex(list...)
}

// newIndex is an index with these entries, in JSON.
func newIndex(entries ...string) *image {
	raw := fmt.Appendf(nil, `{"mediaType": %q, "manifests": [%s]}`, ocispec.MediaTypeImageIndex, strings.Join(entries, ", "))
	return &image{Manifest: Manifest{
		Digest:    digest.FromBytes(raw),
		MediaType: ocispec.MediaTypeImageIndex,
		Size:      int64(len(raw)),
		Raw:       raw,
	}}
}

// pullTag pulls a tag of a repository, and these layers.
func pullTag(t testing.TB, s *Store, repo Repository, tag string, img *image, layers ...*filltest.Origin) {
	t.Helper()
	if _, _, err := s.Tag(t.Context(), repo, tag, img.ask); err != nil {
		t.Fatal(err)
	}
	pullLayers(t, s, layers...)
}

// pullDigest pulls a manifest by its digest, and these layers.
func pullDigest(t testing.TB, s *Store, repo Repository, img *image, layers ...*filltest.Origin) {
	t.Helper()
	if _, _, err := s.Manifest(t.Context(), repo, img.Digest, img.ask); err != nil {
		t.Fatal(err)
	}
	pullLayers(t, s, layers...)
}

func pullLayers(t testing.TB, s *Store, layers ...*filltest.Origin) {
	t.Helper()
	for _, l := range layers {
		pull(t, s, l)
		settle(t, s)
	}
}

// listed returns the images by name.
func listed(t testing.TB, s *Store) map[string]ImageInfo {
	t.Helper()
	images, err := s.Images()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]ImageInfo)
	for i, img := range images {
		if i > 0 && images[i-1].Name() >= img.Name() {
			t.Errorf("%s comes after %s", img.Name(), images[i-1].Name())
		}
		all[img.Name()] = img
	}
	return all
}

func TestImagesAreTagsAndUnreferencedManifests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		opts := Options{Tags: freshness}
		s := openStore(t, dir, opts)
		shared, own := filltest.New(100_000, 1), filltest.New(10_000, 2)
		amd, arm := newImage("amd", shared, own), newImage("arm", filltest.New(10, 3))
		list, lone, half := newList(amd, arm), newImage("lone", shared), newImage("half", shared, filltest.New(10, 4))
		begin := time.Now().UTC().Truncate(time.Second)
		pullTag(t, s, team, "v1", list)
		pullDigest(t, s, team, amd, shared, own)
		pullTag(t, s, team, "half", half)
		pullDigest(t, s, other, lone)
		pass(time.Minute)
		resolve(t, s, dead, Stale, list)

		big := disk.Charge(100_000)
		image := func(repo Repository, tag string, img *image, bytes int64, complete bool) ImageInfo {
			info := ImageInfo{
				Upstream: repo.Upstream, Repository: repo.Name, Tag: tag, Digest: img.Digest, MediaType: img.MediaType,
				Bytes: bytes, Complete: complete, Used: begin,
			}
			if tag != "" {
				info.Checked = begin
			}
			return info
		}
		v1 := image(team, "v1", list, big+disk.Charge(10_000)+2*disk.BlockSize, true)
		v1.Used = begin.Add(time.Minute)
		want := []ImageInfo{
			image(other, "", lone, big+disk.BlockSize, true),
			image(team, "half", half, big+disk.BlockSize, false),
			v1,
		}
		check := func(when string) {
			t.Helper()
			got, err := s.Images()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateApproxTime(time.Second)); diff != "" {
				t.Errorf("%s: %s", when, diff)
			}
		}
		check("at first")
		closeStore(t, s)
		s = openStore(t, dir, opts)
		check("after a restart")
	})
}

func TestStatsCountBlobsPartialsAndFills(t *testing.T) {
	dir := t.TempDir()
	interrupt(t, dir, filltest.New(9<<20, 9))
	opts := Options{Tags: freshness, MaxSize: 1 << 30, Segment: 512 << 10}
	s := openStore(t, dir, opts)
	layer := filltest.New(10_000, 1)
	pullTag(t, s, team, "v1", newImage("a", layer), layer)
	pullTag(t, s, team, "v2", newImage("b", layer))
	if err := s.Pin(team, "v1"); err != nil {
		t.Fatal(err)
	}
	slow := filltest.New(1<<20, 2)
	release := make(chan struct{})
	slow.Plan = func(int, Range) filltest.Act { return filltest.Act{Gate: func(int64) { <-release }} }
	blob := open(t, s, slow)
	got, err := s.Stats()
	close(release)
	blob.Close()
	settle(t, s)
	if err != nil {
		t.Fatal(err)
	}
	want := Stats{MaxSize: 1 << 30, Blobs: 3, Partials: 2, Images: 2, Pinned: 1, Fills: 1}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Stats{}, "Bytes", "Index", "Free")); diff != "" {
		t.Error(diff)
	}
	if got.Bytes < 10<<20+disk.BallastSize || got.Index < disk.BallastSize || got.Index > got.Bytes-9<<20 || got.Free <= 0 {
		t.Errorf("%+v", got)
	}
}

func TestImagesFailsAfterClose(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	closeStore(t, s)
	if images, err := s.Images(); err == nil {
		t.Errorf("got %v", images)
	}
}

func TestRemoveKeepsWhatOtherImagesNeed(t *testing.T) {
	base, own := filltest.New(100_000, 1), filltest.New(10_000, 2)
	a, b := newImage("a", base, own), newImage("b", base)
	for _, c := range []struct {
		name    string
		others  func(t *testing.T, s *Store)
		remove  string
		freed   int64
		left    []string
		removed []digest.Digest
		stay    []digest.Digest
	}{{
		name:    "alone",
		others:  func(*testing.T, *Store) {},
		remove:  "v1",
		freed:   disk.Charge(100_000) + disk.Charge(10_000) + disk.BlockSize,
		removed: []digest.Digest{a.Digest, base.Digest, own.Digest},
	}, {
		name:    "another image shares a layer",
		others:  func(t *testing.T, s *Store) { pullTag(t, s, team, "v2", b) },
		remove:  "v1",
		freed:   disk.Charge(10_000) + disk.BlockSize,
		left:    []string{team.String() + ":v2"},
		removed: []digest.Digest{a.Digest, own.Digest},
		stay:    []digest.Digest{b.Digest, base.Digest},
	}, {
		name:   "another tag",
		others: func(t *testing.T, s *Store) { pullTag(t, s, team, "v2", a) },
		remove: "v1",
		left:   []string{team.String() + ":v2"},
		stay:   []digest.Digest{a.Digest, base.Digest, own.Digest},
	}, {
		name:    "another tag, by digest",
		others:  func(t *testing.T, s *Store) { pullTag(t, s, team, "v2", a) },
		remove:  a.Digest.String(),
		freed:   disk.Charge(100_000) + disk.Charge(10_000) + disk.BlockSize,
		removed: []digest.Digest{a.Digest, base.Digest, own.Digest},
	}, {
		name:   "another repository",
		others: func(t *testing.T, s *Store) { pullDigest(t, s, other, a) },
		remove: "v1",
		left:   []string{other.String() + "@" + a.Digest.String()},
		stay:   []digest.Digest{a.Digest, base.Digest, own.Digest},
	}, {
		name:   "an index",
		others: func(t *testing.T, s *Store) { pullTag(t, s, team, "list", newList(a)) },
		remove: "v1",
		left:   []string{team.String() + ":list"},
		stay:   []digest.Digest{a.Digest, base.Digest, own.Digest},
	}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			opts := Options{Tags: freshness}
			s := openStore(t, dir, opts)
			pullTag(t, s, team, "v1", a, base, own)
			c.others(t, s)
			freed, err := s.Remove(team, c.remove)
			if err != nil || freed != c.freed {
				t.Errorf("freed %d, %v; want %d", freed, err, c.freed)
			}
			checkCharges(t, s)
			if _, _, err := s.Tag(t.Context(), team, "v1", dead); err == nil {
				t.Error("the tag is still served")
			}
			closeStore(t, s)
			s = openStore(t, dir, opts)
			all := listed(t, s)
			for _, name := range c.left {
				if !all[name].Complete {
					t.Errorf("%s: %+v", name, all[name])
				}
			}
			if len(all) != len(c.left) {
				t.Errorf("the images are %v", all)
			}
			for _, d := range c.removed {
				if _, err := s.Stat(d); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s was not removed: %v", d, err)
				}
			}
			for _, d := range c.stay {
				if _, err := s.Stat(d); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestRemoveOfAMissingImageChangesNothing(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	layer := filltest.New(10_000, 1)
	part := newImage("part", layer)
	pullTag(t, s, team, "v1", newList(part))
	pullDigest(t, s, team, part, layer)
	for _, c := range []struct {
		repo      Repository
		reference string
	}{
		{team, "v2"}, {other, "v1"}, {team, layer.Digest.String()}, {team, part.Digest.String()},
	} {
		if freed, err := s.Remove(c.repo, c.reference); freed != 0 || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: freed %d, %v", c.repo.Image(c.reference), freed, err)
		}
	}
	if all := listed(t, s); !all[team.String()+":v1"].Complete {
		t.Errorf("%v", all)
	}
}

func TestRemoveDoesNotStopARunningFill(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness, Segment: 512 << 10})
	layer := filltest.New(1<<20, 1)
	release := make(chan struct{})
	layer.Plan = func(int, Range) filltest.Act { return filltest.Act{Gate: func(int64) { <-release }} }
	pullTag(t, s, team, "v1", newImage("a", layer))
	blob := open(t, s, layer)
	defer blob.Close()
	_, err := s.Remove(team, "v1")
	close(release)
	if err != nil {
		t.Fatal(err)
	}
	layer.Compare(t, blob, 0, 1<<20)
	settle(t, s)
	if _, err := s.Stat(layer.Digest); err != nil {
		t.Error(err)
	}
}

func TestRemoveKeepsBlobsThatAreUsedDuringIt(t *testing.T) {
	layers := []*filltest.Origin{filltest.New(10_000, 1), filltest.New(10_000, 2)}
	img := newImage("a", layers...)
	var s *Store
	var removing atomic.Bool
	opts := Options{Tags: freshness, ScrubEvery: -1}
	opts.steps.Around = func(st disk.Step, take func() error) error {
		if st.Op == disk.OpRemove && removing.CompareAndSwap(true, false) {
			for _, d := range []digest.Digest{img.Digest, layers[0].Digest, layers[1].Digest} {
				s.items.Use(d, s.opts.Now())
			}
			s.recordUses() // as the store does from time to time
		}
		return take()
	}
	s = openStore(t, t.TempDir(), opts)
	pullTag(t, s, team, "v1", img, layers...)
	settle(t, s)
	removing.Store(true)
	if _, err := s.Remove(team, "v1"); err != nil {
		t.Fatal(err)
	}
	if left := files(t, filepath.Join(s.folder.Dir(), "blobs")); len(left) != 2 { // the removal of the first had begun
		t.Errorf("left: %v", left)
	}
}
