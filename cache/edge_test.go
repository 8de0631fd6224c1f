package cache

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// edge is the content of a cache at a site whose link goes down: a plain image; an index of two
// platforms, of which one is stored; and an image whose manifest has no media type. The index
// is pinned.
type edge struct {
	plain, index, platform, untyped *image
	layers                          [3]*filltest.Origin // of plain, platform and untyped
	order                           []digest.Digest
}

var edgeOptions = Options{Tags: Freshness{StaleIfError: time.Hour}, ScrubEvery: -1}

func newEdge() *edge {
	e := &edge{layers: [3]*filltest.Origin{filltest.New(100<<10, 1), filltest.New(50<<10, 2), filltest.New(10<<10, 3)}}
	e.plain = newImage("plain", e.layers[0])
	e.platform = newImage("platform", e.layers[1])
	e.index = newDocument(ocispec.MediaTypeImageIndex, fmt.Sprintf(
		`{"manifests": [{"digest": %q, "size": %d}, {"digest": %q, "size": 1}]}`,
		e.platform.Digest, e.platform.Size, digest.FromString("another platform")))
	e.untyped = newDocument(ocispec.MediaTypeImageManifest, fmt.Sprintf(
		`{"config": {"digest": %q, "size": 2}, "layers": [{"digest": %q, "size": 1}]}`,
		digest.FromString("{}"), e.layers[2].Digest))
	return e
}

func newDocument(mediaType, raw string) *image {
	return &image{Manifest: Manifest{
		Digest: digest.FromString(raw), MediaType: mediaType, Size: int64(len(raw)), Raw: []byte(raw),
	}}
}

// tagged returns the images that have a tag, by tag.
func (e *edge) tagged() map[string]*image {
	return map[string]*image{"plain": e.plain, "index": e.index, "untyped": e.untyped}
}

// fill stores everything.
func (e *edge) fill(t *testing.T, s *Store) {
	t.Helper()
	for tag, img := range e.tagged() {
		if _, _, err := s.Tag(t.Context(), team, tag, img.ask); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Manifest(t.Context(), team, e.platform.Digest, e.platform.ask); err != nil {
		t.Fatal(err)
	}
	for _, o := range e.layers {
		pullFor(t, s, team, o)
	}
	settle(t, s)
	if err := s.Pin(team, "index"); err != nil {
		t.Fatal(err)
	}
	loaded(t, s)
	// This is neither the order in which they were stored nor that of their sizes.
	for i, d := range []digest.Digest{
		e.layers[2].Digest, e.plain.Digest, e.untyped.Digest, e.layers[0].Digest,
		e.platform.Digest, e.index.Digest, e.layers[1].Digest,
	} {
		s.items.Use(d, time.Now().Add(time.Duration(i)*time.Minute))
	}
	e.order = s.items.Digests()
}

// confirm has the upstream confirm everything, as it must after nothing but files was left. No
// layer is fetched again.
func (e *edge) confirm(t *testing.T, s *Store) {
	t.Helper()
	for tag, img := range e.tagged() {
		if _, _, err := s.Tag(t.Context(), team, tag, img.ask); err != nil {
			t.Errorf("tag %s: %v", tag, err)
		}
	}
	if _, _, err := s.Manifest(t.Context(), team, e.platform.Digest, e.platform.ask); err != nil {
		t.Error(err)
	}
	for i, o := range e.layers {
		before, _ := o.Total()
		state := pullFor(t, s, team, o)
		if after, _ := o.Total(); state != Hit || after > before+100 {
			t.Errorf("layer %d: %s, and %d bytes were fetched", i, state, after-before)
		}
	}
}

// check requests everything. There is no upstream.
func (e *edge) check(t *testing.T, s *Store) {
	t.Helper()
	never := func(context.Context) (int64, error) { return 0, filltest.ErrBroken }
	for tag, img := range e.tagged() {
		m, _, err := s.Tag(t.Context(), team, tag, dead)
		if err != nil || m.Digest != img.Digest || m.MediaType != img.MediaType || string(m.Raw) != string(img.Raw) {
			t.Errorf("tag %s: %s of type %q, %v", tag, m.Digest, m.MediaType, err)
		}
	}
	for _, img := range []*image{e.plain, e.index, e.platform, e.untyped} {
		m, _, err := s.Manifest(t.Context(), team, img.Digest, dead)
		if err != nil || m.MediaType != img.MediaType || string(m.Raw) != string(img.Raw) {
			t.Errorf("manifest of type %q: %+v, %v", img.MediaType, m, err)
		}
	}
	for i, o := range e.layers {
		if _, err := s.Holds(t.Context(), team, o.Digest, never); err != nil {
			t.Errorf("layer %d does not belong to the repository: %v", i, err)
		}
		before := len(o.Requests())
		if state := pullFor(t, s, team, o); state != Hit || len(o.Requests()) > before {
			t.Errorf("layer %d: %s", i, state)
		}
	}
	if _, _, err := s.Manifest(t.Context(), other, e.plain.Digest, dead); err == nil {
		t.Error("a manifest is served for a repository that does not contain it")
	}
	if _, err := s.Holds(t.Context(), other, e.layers[0].Digest, never); err == nil {
		t.Error("a layer is served for a repository that does not contain it")
	}
}

// checkKept checks that the order of eviction and the pins are as they were.
func (e *edge) checkKept(t *testing.T, s *Store) {
	t.Helper()
	loaded(t, s)
	if got := s.items.Digests(); !slices.Equal(got, e.order) {
		t.Errorf("the order of eviction is\n%s, want\n%s", strings.Join(names(got), "\n"), strings.Join(names(e.order), "\n"))
	}
	for _, d := range []digest.Digest{e.index.Digest, e.platform.Digest, e.layers[1].Digest} {
		if !s.pins.Holds(d) {
			t.Errorf("%s is no longer pinned", d)
		}
	}
}

func names(digests []digest.Digest) []string {
	var all []string
	for _, d := range digests {
		all = append(all, d.String())
	}
	return all
}
