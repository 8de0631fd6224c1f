package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"

	"github.com/larder-registry/larder/cache/fill/filltest"
)

// A pinned tag moves while a client pulls it, and the upstream dies in the middle: the client has
// been told the new digest, and the next ones get the image before, also after a restart and
// after the index was lost.
func TestPinnedTagStandsForTheLatestWholeImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, opts := t.TempDir(), bounded
		opts.Tags = freshness
		s := openStore(t, dir, opts)
		layer, next := filltest.New(1<<20, 1), filltest.New(1<<20, 2)
		before, after := newImage("a", layer), newImage("b", next)
		pullTag(t, s, team, "v1", before)
		pullFor(t, s, team, layer)
		settle(t, s)
		if err := s.Pin(team, "v1"); err != nil {
			t.Fatal(err)
		}
		pass(freshness.TTL)
		resolve(t, s, after.ask, Miss, after)
		dead := func(context.Context, string, bool) (Manifest, error) { return Manifest{}, errors.New("dead") }
		resolve(t, s, dead, Stale, before)
		if _, ok := s.TagHere(team, "v1"); ok {
			t.Error("the tag is served without asking")
		}
		evictAll(t, s)
		for _, loseIndex := range []bool{false, true} {
			closeStore(t, s)
			if loseIndex {
				if err := os.RemoveAll(s.folder.Index()); err != nil {
					t.Fatal(err)
				}
			}
			s = openStore(t, dir, opts)
			evictAll(t, s)
			resolve(t, s, dead, Stale, before)
			if _, err := s.Stat(layer.Digest); err != nil {
				t.Errorf("the index lost: %t; the layer of the image before: %v", loseIndex, err)
			}
		}

		pass(freshness.Negative)
		resolve(t, s, after.ask, Hit, after) // clients get what the upstream says
		pullFor(t, s, team, next)
		settle(t, s)
		resolve(t, s, after.ask, Hit, after)
		evictAll(t, s)
		if _, err := s.Stat(layer.Digest); err == nil {
			t.Error("the image before is held, though the new one is whole")
		}
		pass(freshness.TTL)
		resolve(t, s, dead, Stale, after)
	})
}

func TestTagThatIsNotPinnedStandsForWhatTheUpstreamSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		layer := filltest.New(1<<20, 1)
		before, after := newImage("a", layer), newImage("b", filltest.New(1<<20, 2))
		pullTag(t, s, team, "v1", before, layer)
		pass(freshness.TTL)
		resolve(t, s, after.ask, Miss, after)
		after.fail(errors.New("dead"))
		resolve(t, s, after.ask, Hit, after)
		pass(freshness.TTL)
		resolve(t, s, after.ask, Stale, after)
	})
}

// The new image of an index is whole for the platforms of the one before, and need not have more.
func TestImageIsReplacedPlatformByPlatform(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	loaded(t, s)
	layers := []*filltest.Origin{filltest.New(1000, 1), filltest.New(1000, 2), filltest.New(1000, 3), filltest.New(1000, 4)}
	oldArm, oldAmd, newArm, newAmd := newImage("a", layers[0]), newImage("b", layers[1]), newImage("c", layers[2]), newImage("d", layers[3])
	index := func(arm64, amd64 *image) *image {
		entry := `{"mediaType": %q, "digest": %q, "size": %d, "platform": {"os": "linux", "architecture": %q}}`
		return newIndex(fmt.Sprintf(entry, arm64.MediaType, arm64.Digest, arm64.Size, "arm64"),
			fmt.Sprintf(entry, amd64.MediaType, amd64.Digest, amd64.Size, "amd64"))
	}
	before, after := index(oldArm, oldAmd), index(newArm, newAmd)
	for _, img := range []*image{before, after, oldArm, newAmd} {
		pullDigest(t, s, team, img)
	}
	wantReplaced := func(what string, want bool) {
		t.Helper()
		if s.replaces(team, after.Digest, before.Digest) != want {
			t.Errorf("%s: the new image replaces the one before: %t", what, !want)
		}
	}
	wantReplaced("nothing is whole", true)
	pullFor(t, s, team, layers[0])
	settle(t, s)
	wantReplaced("the old arm64 is whole", false)
	pullFor(t, s, team, layers[3])
	settle(t, s)
	wantReplaced("only the new amd64 is whole", false)
	pullDigest(t, s, team, newArm, layers[2])
	wantReplaced("the layer of the new arm64 is not proven", false)
	pullFor(t, s, team, layers[2])
	settle(t, s)
	wantReplaced("the new arm64 is whole", true)
	pullDigest(t, s, team, oldAmd)
	pullFor(t, s, team, layers[1])
	settle(t, s)
	wantReplaced("all is whole", true)
	if !s.replaces(team, newAmd.Digest, before.Digest) || !s.replaces(team, before.Digest, newAmd.Digest) {
		t.Error("an image and an index do not replace each other")
	}
}

func TestTagThatIsGoneStandsForTheLatestWholeImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, opts := t.TempDir(), Options{Tags: freshness}
		s := openStore(t, dir, opts)
		layer := filltest.New(1000, 1)
		before, after := newImage("a", layer), newImage("b", filltest.New(1000, 2))
		pullTag(t, s, team, "v1", before)
		pullFor(t, s, team, layer)
		settle(t, s)
		if err := s.Pin(team, "v1"); err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
		pass(freshness.TTL)
		s = openIdle(t, dir, opts)
		if err := s.blobs.Load(t.Context(), func() {}); err != nil { // its pins are not known yet
			t.Fatal(err)
		}
		resolve(t, s, after.ask, Miss, after)
		pass(freshness.TTL)
		resolve(t, s, askGone, Stale, before)
	})
}
