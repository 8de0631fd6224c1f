package bring_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring/bringtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newBringer(s *bringtest.Site) *bring.Bringer {
	return bring.New(s.Proxy, s.Store, slog.New(slog.DiscardHandler))
}

// of returns an image for platforms.
func of(t *testing.T, reference string, platforms ...string) bring.Image {
	t.Helper()
	wanted, err := bring.ParsePlatforms(platforms)
	if err != nil {
		t.Fatal(err)
	}
	return bring.Image{Image: bringtest.Name(reference), Platforms: wanted}
}

func TestAllManifestsOfAnImageAreFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bringtest.New(t, cache.Options{Tags: cache.Freshness{TTL: time.Minute}})
		added := s.AddImage("v1", "a", 1000, "linux/amd64", "linux/arm64", "linux/s390x")
		b := newBringer(s)
		if err := b.FetchAllManifests(t.Context(), bringtest.Repo(), "v1"); err != nil {
			t.Errorf("an image that is not in the cache: %v", err)
		}
		if _, err := s.Pull("v1", 0); err != nil {
			t.Fatal(err)
		}
		for _, reference := range []string{"v1", added.Root.Digest.String()} {
			if err := b.FetchAllManifests(t.Context(), bringtest.Repo(), reference); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range added.Manifests {
			if _, ok := s.Store.ManifestHere(bringtest.Repo(), m.Digest); !ok {
				t.Errorf("%s is not here", m.Platform.Architecture)
			}
		}
		if _, asked, _ := s.Counts(); asked != 1+3+2 {
			t.Errorf("%d questions: for the index, three manifests, and the configuration and layer that were pulled", asked)
		}
	})
}

func TestBroughtImageIsServedWithoutItsUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bringtest.New(t, cache.Options{Tags: cache.Freshness{TTL: time.Minute, StaleIfError: time.Hour}})
		added := s.AddImage("v1", "a", 300_000, "linux/amd64", "linux/arm64")
		b := newBringer(s)
		image := of(t, "v1", "linux/arm64")
		if b.IsWhole(image, added.Root.Digest) {
			t.Error("it is whole before it was fetched")
		}
		got := b.Bring(t.Context(), []bring.Image{image}, nil)[0]
		if got.Err != nil || got.Digest != added.Root.Digest || got.Fetched != got.Bytes || got.Bytes < 300_000 {
			t.Errorf("brought %+v", got)
		}
		if !slices.Equal(got.Platforms, []string{"linux/arm64"}) || len(got.LeftOut) != 1 || got.LeftOut[0] != added.Manifests[0].Digest {
			t.Errorf("platforms %v, left out %v", got.Platforms, got.LeftOut)
		}
		if !b.IsWhole(image, added.Root.Digest) || b.IsWhole(of(t, "v1", "all"), added.Root.Digest) {
			t.Error("it is not whole, or for all platforms")
		}
		s.SetDown(true)
		<-time.After(10 * time.Minute)
		if root, err := s.Pull("v1", 1); err != nil || root != added.Root.Digest {
			t.Errorf("pulled %s, %v", root, err)
		}
		s.SetDown(false)
		if again := b.Bring(t.Context(), []bring.Image{image}, nil)[0]; again.Err != nil || again.Fetched != 0 {
			t.Errorf("brought again: %+v", again)
		}
	})
}

func TestOneImageThatFailsDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bringtest.New(t, cache.Options{})
		s.AddImage("v1", "a", 1000, "linux/amd64")
		broken := s.AddImage("v2", "b", 1000, "linux/amd64")
		s.AddImage("v3", "c", 1000, "linux/amd64", "linux/386")
		s.Remove(broken.Layers[0].Digest.String())
		got := newBringer(s).Bring(t.Context(), []bring.Image{
			of(t, "gone", "linux/amd64"), of(t, "v2", "linux/amd64"), of(t, "v3", "linux/s390x"), of(t, "v1", "linux/amd64"),
		}, nil)
		if !errors.Is(got[0].Err, fs.ErrNotExist) {
			t.Errorf("a tag that does not exist: %v", got[0].Err)
		}
		if got[1].Err == nil || !strings.Contains(got[1].Err.Error(), broken.Layers[0].Digest.String()) {
			t.Errorf("an image without one of its layers: %v", got[1].Err)
		}
		if got[2].Err == nil || !strings.Contains(got[2].Err.Error(), "no platform linux/s390x; it has linux/amd64, linux/386") {
			t.Errorf("a platform that does not exist: %v", got[2].Err)
		}
		if got[3].Err != nil {
			t.Error(got[3].Err)
		}
	})
}

func TestTagStandsForTheOldImageUntilTheNewOneIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bringtest.New(t, cache.Options{Tags: cache.Freshness{TTL: 24 * time.Hour}})
		b, image := newBringer(s), of(t, "v1", "linux/amd64")
		before := s.AddImage("v1", "a", 100_000, "linux/amd64")
		if got := b.Bring(t.Context(), []bring.Image{image}, nil)[0]; got.Err != nil {
			t.Fatal(got.Err)
		}
		after := s.AddImage("v1", "b", 100_000, "linux/amd64")
		s.SetBudget(50_000)
		if got := b.Bring(t.Context(), []bring.Image{image}, nil)[0]; got.Err == nil || got.Fetched >= 100_000 {
			t.Errorf("half of it came: %+v", got)
		}
		if root, err := s.Pull("v1", 0); err != nil || root != before.Root.Digest {
			t.Errorf("pulled %s, %v; want the image before", root, err)
		}
		<-time.After(time.Minute) // refusals are forgotten
		s.SetBudget(-1)
		if got := b.Bring(t.Context(), []bring.Image{image}, nil)[0]; got.Err != nil || got.Fetched > 60_000 {
			t.Errorf("the rest: %+v", got)
		}
		if root, err := s.Pull("v1", 0); err != nil || root != after.Root.Digest {
			t.Errorf("pulled %s, %v; want the new image", root, err)
		}
	})
}

func TestProgressTellsWhatIsHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bringtest.New(t, cache.Options{})
		s.AddImage("v1", "a", 100_000, "linux/amd64")
		var last []bring.Progress
		got := newBringer(s).Bring(t.Context(), []bring.Image{of(t, "v1", "linux/amd64"), of(t, "none", "linux/amd64")}, func(all []bring.Progress) {
			last = slices.Clone(all)
		})
		want := []bring.Progress{
			{Image: got[0].Image, Done: got[0].Bytes, Total: got[0].Bytes, Ended: true},
			{Image: got[1].Image, Ended: true},
		}
		if !slices.Equal(last, want) {
			t.Errorf("the last report is %+v, want %+v", last, want)
		}
	})
}

func TestImageThatDoesNotFitIsNotWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bringtest.New(t, cache.Options{MaxSize: 3 << 20})
		s.AddImage("v1", "a", 4<<20, "linux/amd64")
		if got := newBringer(s).Bring(t.Context(), []bring.Image{of(t, "v1", "linux/amd64")}, nil)[0]; got.Err == nil {
			t.Errorf("brought %+v", got)
		}
	})
}

func TestBringEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bringtest.New(t, cache.Options{})
		s.AddImage("v1", "a", 100_000, "linux/amd64")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got := newBringer(s).Bring(ctx, []bring.Image{of(t, "v1", "linux/amd64")}, nil)[0]; !errors.Is(got.Err, context.Canceled) {
			t.Errorf("brought %+v", got)
		}
	})
}

// Attestations in an index belong to the referrers of its images.
func TestAttestationsComeWithReferrers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bringtest.New(t, cache.Options{})
		added := s.AddImage("v1", "a", 1000, "linux/amd64", "linux/arm64")
		var entries []ocispec.Descriptor
		for i, m := range added.Manifests {
			attestation := s.AddImage("unused", "attestation"+string(rune('0'+i)), 1000, "linux/amd64").Root
			attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
			attestation.Annotations = map[string]string{"vnd.docker.reference.digest": m.Digest.String()}
			entries = append(entries, m, attestation)
		}
		s.Tag("v1", s.AddIndex(entries...).Digest)
		for _, referrers := range []bool{false, true} {
			image := of(t, "v1", "linux/arm64")
			image.Referrers = referrers
			got := newBringer(s).Bring(t.Context(), []bring.Image{image}, nil)[0]
			want := 3
			if referrers {
				want = 2
			}
			if got.Err != nil || len(got.LeftOut) != want {
				t.Errorf("referrers %t: %+v, want %d left out", referrers, got, want)
			}
		}
	})
}

func TestPlatformsOfAMachineThatRunsOlderOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bringtest.New(t, cache.Options{})
		s.AddImage("v1", "a", 1000, "linux/amd64", "linux/arm/v5", "linux/arm/v6")
		for want, platforms := range map[string][]string{
			"linux/arm/v6":                          {"linux/arm/v7"},
			"linux/arm/v5":                          {"linux/arm/v5"},
			"linux/amd64 linux/arm/v5 linux/arm/v6": {"all"},
		} {
			got := newBringer(s).Bring(t.Context(), []bring.Image{of(t, "v1", platforms...)}, nil)[0]
			if text := strings.Join(got.Platforms, " "); got.Err != nil || text != want {
				t.Errorf("%v: %s, %v; want %s", platforms, text, got.Err, want)
			}
		}
		if _, err := bring.ParsePlatforms([]string{"linux//"}); err == nil {
			t.Error("a text that is no platform is taken")
		}
	})
}

// The digest that a tag names since it has moved is followed after its cooldown, or when a command says so.
func TestWarmNowOverridesACooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tags := cache.Freshness{TTL: time.Minute, Cooldown: func(cache.Repository, string) cache.Cooldown { return cache.Cooldown{For: 72 * time.Hour} }}
		var log bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&log, nil))
		s := bringtest.New(t, cache.Options{Tags: tags, Log: logger})
		mux := http.NewServeMux()
		bring.New(s.Proxy, s.Store, logger).AddTo(mux, func(*http.Request) string { return "1000" })
		warm := func(now bool, want digest.Digest) {
			t.Helper()
			body := fmt.Sprintf(`{"images": [%q], "platforms": ["linux/amd64"], "now": %t}`, bringtest.Name("v1"), now)
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/warm", strings.NewReader(body)))
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want.String()) {
				t.Errorf("warm, now %t: %d %s; want %s", now, w.Code, w.Body, want)
			}
			if root, err := s.Pull("v1", 0); err != nil || root != want {
				t.Errorf("now %t: pulled %s, %v; want %s", now, root, err, want)
			}
		}
		before := s.AddImage("v1", "a", 1000, "linux/amd64").Root.Digest
		warm(true, before)
		after := s.AddImage("v1", "b", 1000, "linux/amd64").Root.Digest
		<-time.After(time.Hour)
		warm(false, before)
		const override = "overrides the cooldown of a tag"
		if strings.Contains(log.String(), override) {
			t.Errorf("the log: %s", &log)
		}
		warm(true, after)
		warm(true, after)
		if n := strings.Count(log.String(), override+`" user=1000 repository=registry.test/team/app tag=v1 before=`+before.String()+" digest="+after.String()); n != 1 {
			t.Errorf("%d lines in the log say who overrode which cooldown: %s", n, &log)
		}
	})
}
