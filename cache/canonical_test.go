package cache

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache/fill/filltest"
)

// withoutPort is the canonical name of an upstream in these tests.
func withoutPort(upstream string) string { return strings.TrimSuffix(upstream, ":443") }

// An earlier release kept what clients asked of host:443 apart from what they asked of the
// host. There is no upstream in this test.
func TestRecordsUnderAnOtherNameOfAnUpstreamAreServedUnderItsOneName(t *testing.T) {
	dir := t.TempDir()
	opts := Options{Tags: Freshness{StaleIfError: time.Hour}, ScrubEvery: -1}
	written, canonical := Repository{Upstream: "ghcr.io:443", Name: "team/app"}, Repository{Upstream: "ghcr.io", Name: "team/app"}
	other := Repository{Upstream: "ghcr.io:4443", Name: "team/app"}
	layer, kept := filltest.New(100_000, 1), filltest.New(1000, 2)
	img, old, now := newImage("image", layer), newImage("old"), newImage("now", kept)

	earlier := func() {
		s := openStore(t, dir, opts)
		pullTag(t, s, written, "v1", img)
		pullTag(t, s, written, "both", old)
		pullTag(t, s, other, "v1", old)
		pullFor(t, s, written, layer)
		if err := s.Pin(written, "v1"); err != nil {
			t.Fatal(err)
		}
		settle(t, s)
		closeStore(t, s)
	}
	check := func(when string) *Store {
		t.Helper()
		opts := opts
		opts.Canonical = withoutPort
		s := openStore(t, dir, opts)
		if m, _, err := s.Tag(t.Context(), canonical, "v1", dead); err != nil || m.Digest != img.Digest {
			t.Errorf("%s: %s, %v", when, m.Digest, err)
		}
		if m, _, err := s.Tag(t.Context(), other, "v1", dead); err != nil || m.Digest != old.Digest {
			t.Errorf("%s, another port: %s, %v", when, m.Digest, err)
		}
		if !hasManifest(t, s, canonical, img) || !hasBlob(t, s, canonical, layer) {
			t.Errorf("%s: not all of the image is served", when)
		}
		for name := range listed(t, s) {
			if strings.HasPrefix(name, written.Upstream) {
				t.Errorf("%s: %s is listed", when, name)
			}
		}
		pins, err := s.Pins()
		if err != nil || len(pins) != 1 || pins[0].Image != canonical.Image("v1") {
			t.Errorf("%s: the pins are %+v, %v", when, pins, err)
		}
		return s
	}
	earlier()
	s := check("after the upgrade")
	pullTag(t, s, canonical, "both", now)
	settle(t, s)
	closeStore(t, s)
	closeStore(t, check("after a restart"))

	earlier() // it writes a snapshot
	s = check("back and forward again")
	if m, _, err := s.Tag(t.Context(), canonical, "both", dead); err != nil || m.Digest != now.Digest {
		t.Errorf("a record under the other name replaced that of the one name: %s, %v", m.Digest, err)
	}
	closeStore(t, s)
	if err := os.RemoveAll(s.folder.Index()); err != nil {
		t.Fatal(err)
	}
	closeStore(t, check("by its snapshot"))

	earlier()
	if err := os.RemoveAll(s.folder.Index()); err != nil {
		t.Fatal(err)
	}
	closeStore(t, check("by the snapshot of the earlier release"))
}
