package cache

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/opencontainers/go-digest"
)

// kept keeps the tag v1 of team.
func kept(opts Options) Options {
	opts.Tags = freshness
	opts.Keep = func(image string) bool { return image == team.Image("v1") }
	return opts
}

// pinnedNames returns the names of what is pinned.
func pinnedNames(t *testing.T, s *Store) []string {
	t.Helper()
	all, err := s.Pins()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, pin := range all {
		names = append(names, pin.Image)
	}
	return names
}

func TestNextImageOfAKeptTagStaysPinnedAfterARestart(t *testing.T) {
	dir := t.TempDir()
	old, coming, later := filltest.New(10_000, 1), filltest.New(10_000, 2), filltest.New(10_000, 3)
	next := newImage("new", coming, later)
	s := openStore(t, dir, kept(Options{}))
	pullTag(t, s, team, "v1", newImage("old", old), old)
	pullDigest(t, s, team, next, coming) // and not the other layer
	if err := s.KeepNext(team, "v1", next.Digest); err != nil {
		t.Fatal(err)
	}
	want := []string{team.Image("v1"), team.Image(next.Digest.String())}
	for _, restart := range []string{"", "the next start", "a start without the index"} {
		switch restart {
		case "the next start":
			closeStore(t, s)
			s = openStore(t, dir, kept(Options{}))
		case "a start without the index":
			closeStore(t, s)
			if err := os.RemoveAll(s.folder.Index()); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, dir, kept(Options{}))
		}
		evictAll(t, s)
		if got := pinnedNames(t, s); !slices.Equal(got, want) {
			t.Errorf("%s: pinned: %v", restart, got)
		}
		for _, d := range []digest.Digest{old.Digest, next.Digest, coming.Digest} {
			if _, err := s.Stat(d); err != nil {
				t.Errorf("%s: %v", restart, err)
			}
		}
	}

	closeStore(t, s) // and then the configuration keeps nothing
	s = openStore(t, dir, Options{Tags: freshness})
	if got := pinnedNames(t, s); got != nil {
		t.Errorf("pinned though nothing is kept: %v", got)
	}
}

func TestNextImageIsLetGoWhenTheTagNamesIt(t *testing.T) {
	dir := t.TempDir()
	old, coming := filltest.New(10_000, 1), filltest.New(10_000, 2)
	first, next := newImage("old", old), newImage("new", coming)
	s := openStore(t, dir, kept(Options{}))
	pullTag(t, s, team, "v1", first, old)
	pullDigest(t, s, team, next, coming)
	if err := s.KeepNext(team, "v1", next.Digest); err != nil {
		t.Fatal(err)
	}
	if err := s.SetTag(team, "v1", next.Digest, s.now()); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s) // as if it had crashed now
	s = openStore(t, dir, kept(Options{}))
	if got := pinnedNames(t, s); !slices.Equal(got, []string{team.Image("v1")}) {
		t.Errorf("after a crash: %v", got)
	}
	if err := s.EndNext(team, "v1"); err != nil {
		t.Fatal(err)
	}
	if err := s.KeepNext(team, "v1", first.Digest); err != nil { // it moves back
		t.Fatal(err)
	}
	if err := s.EndNext(team, "v1"); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = openStore(t, dir, kept(Options{}))
	if got := pinnedNames(t, s); !slices.Equal(got, []string{team.Image("v1")}) {
		t.Errorf("in the end: %v", got)
	}
}

// The pull that comes while the folder is loaded needs the space of what is kept.
func TestKeptImagesArePinnedBeforeAnythingIsEvicted(t *testing.T) {
	for name, reference := range map[string]func(*image) string{
		"by a tag":    func(*image) string { return "v1" },
		"by a digest": func(img *image) string { return img.Digest.String() },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			layer, other := filltest.New(5<<20, 1), filltest.New(5<<20, 2)
			img := newImage("a", layer)
			opts := bounded
			opts.Tags = freshness
			s := openStore(t, dir, opts)
			pullTag(t, s, team, "v1", img, layer)
			if strings.Contains(reference(img), ":") {
				if err := s.index.RemoveTag(team, "v1"); err != nil {
					t.Fatal(err)
				}
				opts.KeptDigests = func() []RepoDigest { return []RepoDigest{{Repository: team, Digest: img.Digest}} }
			}
			closeStore(t, s)
			opts.Keep = func(image string) bool { return image == team.Image(reference(img)) }
			s = openStore(t, dir, opts)
			pull(t, s, other)
			settle(t, s)
			if _, err := s.Stat(layer.Digest); err != nil {
				t.Errorf("it was evicted: %v", err)
			}
			closeStore(t, s)

			opts.Keep, opts.KeptDigests = nil, nil
			s = openStore(t, dir, opts)
			pull(t, s, filltest.New(5<<20, 3))
			settle(t, s)
			if _, err := s.Stat(layer.Digest); err == nil {
				t.Error("both fit: the test shows nothing")
			}
		})
	}
}
