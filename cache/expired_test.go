package cache

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/larder-registry/larder/cache/blobs"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"golang.org/x/sys/unix"
)

// One of two images that share a layer is removed, or expires and is evicted. The other one
// is then pulled without an upstream.
func TestSharedLayersSurviveRemovalAndExpiryOfAnImage(t *testing.T) {
	base, own := filltest.New(10_000, 1), []*filltest.Origin{filltest.New(1000, 2), filltest.New(1000, 3)}
	gone, kept := newImage("gone", base, own[0]), newImage("kept", base, own[1])
	for name, remove := range map[string]func(*testing.T, *Store){
		"removed": func(t *testing.T, s *Store) {
			if _, err := s.Remove(team, "gone"); err != nil {
				t.Fatal(err)
			}
		},
		"expired": func(t *testing.T, s *Store) {
			if err := s.Expire([]Verdict{{Repository: team, Digest: gone.Digest, Expiry: Expiry{Since: time.Now()}}}); err != nil {
				t.Fatal(err)
			}
			evictN(t, s, 2)
			if d, expired, _ := s.items.First(); expired {
				t.Errorf("%s has expired too", d)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			opts := Options{Tags: freshness}
			s := openStore(t, dir, opts)
			pullTag(t, s, team, "kept", kept, base, own[1])
			pullTag(t, s, team, "gone", gone, own[0])
			remove(t, s)
			for _, d := range []digest.Digest{gone.Digest, own[0].Digest} {
				if _, err := s.Stat(d); err == nil {
					t.Errorf("%s is still there", d)
				}
			}
			closeStore(t, s)
			s = openStore(t, dir, opts)
			m, _, err := s.Tag(t.Context(), team, "kept", dead)
			if err != nil || m.Digest != kept.Digest {
				t.Errorf("the other tag: %v, %v", m.Digest, err)
			}
			for _, l := range []*filltest.Origin{base, own[1]} {
				if state := pull(t, s, l); state != Hit {
					t.Errorf("a layer of the other: %s", state)
				}
			}
		})
	}
}

// evictN evicts n items and returns their digests, in order.
func evictN(t *testing.T, s *Store, n int) []digest.Digest {
	t.Helper()
	var gone []digest.Digest
	for range n {
		d, _, _ := s.items.First()
		if err := evictNow(s, 1); err != nil {
			t.Fatal(err)
		}
		gone = append(gone, d)
	}
	return gone
}

func TestExpiredImagesAreEvictedFirstByAgeOfExpiry(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	base := filltest.New(1000, 1)
	own := []*filltest.Origin{filltest.New(1000, 2), filltest.New(1000, 3), filltest.New(1000, 4)}
	var images []*image
	for i, l := range own {
		img := newImage(fmt.Sprint(i), base, l)
		images = append(images, img)
		pullTag(t, s, team, fmt.Sprint("v", i), img, base, l)
	}
	now := time.Now()
	err := s.Expire([]Verdict{
		{Repository: team, Digest: images[1].Digest, Expiry: Expiry{Since: now.Add(-time.Hour)}},
		{Repository: team, Digest: images[2].Digest, Expiry: Expiry{Since: now.Add(-2 * time.Hour)}},
		{Repository: team, Digest: digest.FromString("not stored"), Expiry: Expiry{Since: now}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []digest.Digest{images[2].Digest, own[2].Digest, images[1].Digest, own[1].Digest, images[0].Digest}
	if gone := evictN(t, s, 5); !slices.Equal(gone, want) {
		t.Errorf("evicted %v, want %v", gone, want)
	}
}

func TestUsedImageIsNoLongerExpired(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	layers := []*filltest.Origin{filltest.New(1000, 1), filltest.New(1000, 2)}
	old, young := newImage("old", layers[0]), newImage("young", layers[1])
	pullTag(t, s, team, "old", old, layers[0])
	pullTag(t, s, team, "young", young, layers[1])
	if err := s.Expire([]Verdict{{Repository: team, Digest: old.Digest, Expiry: Expiry{Since: time.Now()}}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Manifest(t.Context(), team, old.Digest, dead); err != nil {
		t.Fatal(err)
	}
	if gone := evictN(t, s, 2); !slices.Equal(gone, []digest.Digest{young.Digest, layers[1].Digest}) {
		t.Errorf("evicted %v", gone)
	}
}

func TestImageExpiresOnlyIfExpiredInAllRepositories(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	img, younger := newImage("a"), newImage("b")
	pullTag(t, s, team, "v1", img)
	pullTag(t, s, other, "v1", img)
	pullTag(t, s, team, "v2", younger)
	if err := s.Expire([]Verdict{{Repository: team, Digest: img.Digest, Expiry: Expiry{Since: time.Now()}}}); err != nil {
		t.Fatal(err)
	}
	if _, expired, _ := s.items.First(); expired {
		t.Error("the image has expired although it has not in the other repository")
	}
	if err := s.Expire([]Verdict{{Repository: team, Digest: img.Digest, Expiry: Expiry{Since: time.Now()}}, {Repository: other, Digest: img.Digest, Expiry: Expiry{Since: time.Now()}}}); err != nil {
		t.Fatal(err)
	}
	if d, expired, _ := s.items.First(); !expired || d != img.Digest {
		t.Error("the image has not expired although it has in all repositories")
	}
	if err := s.Expire(nil); err != nil {
		t.Fatal(err)
	}
	if _, expired, _ := s.items.First(); expired {
		t.Error("the image is still expired after the verdicts were withdrawn")
	}
}

func TestPlatformsExpireWithTheirIndex(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	layer := filltest.New(1000, 1)
	platform := newImage("platform", layer)
	raw := fmt.Appendf(nil, `{"mediaType": %q, "manifests": [{"digest": %q, "size": %d}]}`,
		ocispec.MediaTypeImageIndex, platform.Digest, platform.Size)
	index := &image{Manifest: Manifest{Digest: digest.FromBytes(raw), MediaType: ocispec.MediaTypeImageIndex, Size: int64(len(raw)), Raw: raw}}
	pullTag(t, s, team, "v1", index)
	if _, _, err := s.Manifest(t.Context(), team, platform.Digest, platform.ask); err != nil {
		t.Fatal(err)
	}
	pull(t, s, layer)
	settle(t, s)
	pullTag(t, s, team, "v2", newImage("other"))
	if err := s.Expire([]Verdict{{Repository: team, Digest: index.Digest, Expiry: Expiry{Since: time.Now()}}}); err != nil {
		t.Fatal(err)
	}
	if gone := evictN(t, s, 3); !slices.Equal(gone, []digest.Digest{index.Digest, platform.Digest, layer.Digest}) {
		t.Errorf("evicted %v", gone)
	}
	if _, expired, _ := s.items.First(); expired {
		t.Error("another image has expired too")
	}
}

func TestImageOfTwoRepositoriesExpiresWithTheLaterVerdict(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	img, between := newImage("a"), newImage("b")
	pullTag(t, s, team, "v1", img)
	pullTag(t, s, other, "v1", img)
	pullTag(t, s, team, "v2", between)
	now := time.Now()
	err := s.Expire([]Verdict{
		{Repository: team, Digest: img.Digest, Expiry: Expiry{Since: now.Add(-3 * time.Hour)}},
		{Repository: other, Digest: img.Digest, Expiry: Expiry{Since: now.Add(-time.Hour)}},
		{Repository: team, Digest: between.Digest, Expiry: Expiry{Since: now.Add(-2 * time.Hour)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if gone := evictN(t, s, 2); !slices.Equal(gone, []digest.Digest{between.Digest, img.Digest}) {
		t.Errorf("evicted %v", gone)
	}
}

func TestLayerOfTwoExpiredImagesIsEvictedAfterBoth(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	base := filltest.New(1000, 1)
	first, second := newImage("first", base), newImage("second", base)
	pullTag(t, s, team, "v1", first, base)
	pullTag(t, s, team, "v2", second)
	now := time.Now()
	err := s.Expire([]Verdict{
		{Repository: team, Digest: first.Digest, Expiry: Expiry{Since: now.Add(-2 * time.Hour)}},
		{Repository: team, Digest: second.Digest, Expiry: Expiry{Since: now.Add(-time.Hour)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if gone := evictN(t, s, 3); !slices.Equal(gone, []digest.Digest{first.Digest, second.Digest, base.Digest}) {
		t.Errorf("evicted %v", gone)
	}
}

func TestWithdrawnVerdictRestoresTheEvictionOrder(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	images := []*image{newImage("a"), newImage("b"), newImage("c")}
	for i, img := range images {
		pullTag(t, s, team, fmt.Sprint("v", i), img)
	}
	for _, verdicts := range [][]Verdict{{{Repository: team, Digest: images[1].Digest, Expiry: Expiry{Since: time.Now()}}}, nil} {
		if err := s.Expire(verdicts); err != nil {
			t.Fatal(err)
		}
	}
	if gone := evictN(t, s, 3); !slices.Equal(gone, []digest.Digest{images[0].Digest, images[1].Digest, images[2].Digest}) {
		t.Errorf("evicted %v", gone)
	}
}

// The image is pulled after the index was read, and before its items are marked as expired.
func TestLayerOfAnImagePulledDuringExpireStays(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	base := filltest.New(1000, 1)
	old, young := newImage("old", base), newImage("young", base)
	pullTag(t, s, team, "old", old, base)
	watch := s.items.Watch()
	c, err := s.catalog()
	if err != nil {
		t.Fatal(err)
	}
	pullTag(t, s, team, "young", young)
	s.items.Expire(c.OnlyNeededBy([]digest.Digest{old.Digest}), watch)
	s.items.EndWatch(watch)
	if gone := evictN(t, s, 2); !slices.Equal(gone, []digest.Digest{old.Digest, young.Digest}) {
		t.Errorf("evicted %v", gone)
	}
}

func TestVerdictsSurviveARestartAndEndWithTheImage(t *testing.T) {
	dir := t.TempDir()
	opts := Options{Tags: freshness}
	s := openStore(t, dir, opts)
	layer := filltest.New(1000, 1)
	images := []*image{newImage("young"), newImage("old", layer), newImage("older")}
	pullTag(t, s, team, "young", images[0])
	pullTag(t, s, team, "old", images[1], layer)
	pullTag(t, s, team, "older", images[2])
	since := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	old := Expiry{Since: since, Rule: 10, Source: "ecr"}
	older := Expiry{Since: since.Add(-time.Hour), Rule: 20, Source: "local"}
	err := s.Expire([]Verdict{{Repository: team, Digest: images[1].Digest, Expiry: old}, {Repository: team, Digest: images[2].Digest, Expiry: older}, {Repository: team, Digest: digest.FromString("gone"), Expiry: older}})
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = openStore(t, dir, opts)
	want := map[string]*Expiry{"young": nil, "old": &old, "older": &older}
	got := make(map[string]*Expiry)
	for _, img := range listed(t, s) {
		got[img.Tag] = img.Expired
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
	if gone := evictN(t, s, 1); !slices.Equal(gone, []digest.Digest{images[2].Digest}) {
		t.Errorf("evicted after a restart: %v", gone)
	}
	verdicts, err := s.Verdicts()
	if diff := cmp.Diff([]Verdict{{Repository: team, Digest: images[1].Digest, Expiry: old}}, verdicts); diff != "" || err != nil {
		t.Errorf("after an eviction: %v (-want +got):\n%s", err, diff)
	}
	if _, err := s.Remove(team, "old"); err != nil {
		t.Fatal(err)
	}
	if verdicts, err := s.Verdicts(); len(verdicts) != 0 || err != nil {
		t.Errorf("after a removal: %v, %v", verdicts, err)
	}
}

func TestVerdictsApplyIfTheDiskDoesNotAcceptThem(t *testing.T) {
	var log logBuffer
	s := openStore(t, t.TempDir(), Options{Tags: freshness, Log: log.log()})
	layer := filltest.New(1000, 1)
	img := newImage("a", layer)
	pullTag(t, s, team, "v1", img, layer)
	s.health.Note(unix.EIO)
	if err := s.Expire([]Verdict{{Repository: team, Digest: img.Digest, Expiry: Expiry{Since: time.Now()}}}); err != nil {
		t.Error(err)
	}
	if d, expired, _ := s.items.First(); d != img.Digest || !expired {
		t.Errorf("%s is evicted first, expired: %t", d, expired)
	}
	log.wantLogged(t, 1, 0)
}

func TestEvictionsAreCountedByReason(t *testing.T) {
	m := newMeter()
	s := openStore(t, t.TempDir(), Options{Meter: m.MeterProvider, Tags: freshness})
	for i := range 3 {
		pullTag(t, s, team, fmt.Sprint("v", i), newImage(fmt.Sprint(i)))
	}
	if err := s.Expire([]Verdict{{Repository: team, Digest: newImage("2").Digest, Expiry: Expiry{Since: time.Now()}}}); err != nil {
		t.Fatal(err)
	}
	evictN(t, s, 2)
	if _, err := s.Remove(team, "v1"); err != nil {
		t.Fatal(err)
	}
	var all metricdata.ResourceMetrics
	if err := m.reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int64)
	for _, it := range all.ScopeMetrics[0].Metrics {
		if sum, ok := it.Data.(metricdata.Sum[int64]); ok && it.Name == "larder.evictions" {
			for _, point := range sum.DataPoints {
				reason, _ := point.Attributes.Value("reason")
				got[reason.AsString()] = point.Value
			}
		}
	}
	want := map[string]int64{blobs.ReasonExpired: 1, blobs.ReasonUnused: 1, blobs.ReasonRemoved: 1, blobs.ReasonGone: 0, blobs.ReasonRecords: 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("evictions (-want +got):\n%s", diff)
	}
}

func TestHoldingsHaveWhatLifecycleRulesNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness, ScrubEvery: -1})
		layer := filltest.New(1000, 1)
		amd, arm := newImage("amd", layer), newImage("arm")
		list := newList(amd, arm)
		begin := time.Now()
		pullTag(t, s, team, "v1", list)
		pullTag(t, s, team, "latest", list)
		pullDigest(t, s, team, amd, layer)
		raw := fmt.Appendf(nil, `{"mediaType": %q, "layers": [], "subject": {"digest": %q}}`, ocispec.MediaTypeImageManifest, amd.Digest)
		signature := &image{Manifest: Manifest{Digest: digest.FromBytes(raw), MediaType: ocispec.MediaTypeImageManifest, Size: int64(len(raw)), Raw: raw}}
		pullDigest(t, s, team, signature)
		pass(2 * time.Minute)
		pullDigest(t, s, other, amd) // already stored, but for another repository
		got, err := s.Holdings()
		if err != nil {
			t.Fatal(err)
		}
		later := begin.Add(2 * time.Minute)
		platform := Holding{Digest: amd.Digest, Children: []digest.Digest{layer.Digest}, Fetched: begin, Used: later, Touched: begin}
		want := map[Repository][]Holding{
			team: {platform, {Digest: signature.Digest, Subject: amd.Digest, Fetched: begin, Used: begin, Touched: begin}, {Digest: list.Digest, Tags: []string{"latest", "v1"}, Index: true,
				Children: []digest.Digest{amd.Digest, arm.Digest}, Fetched: begin, Used: begin, Touched: begin}},
			other: {platform},
		}
		byDigest := func(a, b Holding) bool { return a.Digest < b.Digest }
		if diff := cmp.Diff(want, got, cmpopts.EquateApproxTime(time.Second), cmpopts.SortSlices(byDigest)); diff != "" {
			t.Errorf("holdings (-want +got):\n%s", diff)
		}
	})
}
