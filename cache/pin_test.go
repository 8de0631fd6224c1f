package cache

import (
	"errors"
	"io/fs"
	"math"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
	"golang.org/x/sys/unix"
)

// evictAll evicts everything that may be evicted.
func evictAll(t *testing.T, s *Store) {
	t.Helper()
	loaded(t, s)
	if err := evictNow(s, math.MaxInt64); err != nil {
		t.Fatal(err)
	}
}

func TestPinnedImageIsNotEvicted(t *testing.T) {
	dir := t.TempDir()
	opts := bounded
	opts.Tags = freshness
	s := openStore(t, dir, opts)
	layer, late := filltest.New(1<<20, 1), filltest.New(1<<20, 2)
	img, byDigest := newImage("a", layer, late), newImage("b")
	pullTag(t, s, team, "v1", img, layer)
	pullDigest(t, s, other, byDigest)
	for _, pin := range []records.Pin{{Repository: team, Reference: "v1"}, {Repository: other, Reference: byDigest.Digest.String()}} {
		if err := s.Pin(pin.Repository, pin.Reference); err != nil {
			t.Fatal(err)
		}
	}
	pullLayers(t, s, late) // after the pin
	for range 2 {          // the second time after a restart
		for i := range 12 {
			pullLayers(t, s, filltest.New(1<<20, uint64(10+i)))
		}
		evictAll(t, s)
		if n := s.items.Len(); n != 4 {
			t.Errorf("%d blobs are left", n)
		}
		all := listed(t, s)
		for _, name := range []string{team.String() + ":v1", other.String() + "@" + byDigest.Digest.String()} {
			if !all[name].Complete || !all[name].Pinned {
				t.Errorf("%s: %+v", name, all[name])
			}
		}
		checkCharges(t, s)
		closeStore(t, s)
		s = openStore(t, dir, opts)
	}
	if err := s.Unpin(team, "v1"); err != nil {
		t.Fatal(err)
	}
	evictAll(t, s)
	if n := s.items.Len(); n != 1 {
		t.Errorf("%d blobs are left after one image was unpinned", n)
	}
}

func TestPinFollowsItsTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{Tags: freshness})
		before, after := filltest.New(10_000, 1), filltest.New(10_000, 2)
		old, moved := newImage("old", before), newImage("new", after)
		pullTag(t, s, team, "v1", old, before)
		if err := s.Pin(team, "v1"); err != nil {
			t.Fatal(err)
		}
		pass(freshness.TTL)
		resolve(t, s, moved.ask, Miss, moved)
		pullLayers(t, s, after)
		pass(tick) // until it is noticed that the new image is whole
		synctest.Wait()
		evictAll(t, s)
		if _, err := s.Stat(after.Digest); err != nil {
			t.Error(err)
		}
		if _, err := s.Stat(before.Digest); err == nil {
			t.Error("the old image of the tag is still pinned")
		}
	})
}

func TestPinOfAnIndexProtectsPlatformsThatArriveLater(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	layer := filltest.New(10_000, 1)
	platform := newImage("amd", layer)
	list := newList(platform, newImage("arm"))
	pullTag(t, s, team, "v1", list)
	if err := s.Pin(team, "v1"); err != nil {
		t.Fatal(err)
	}
	pullDigest(t, s, team, platform, layer)
	evictAll(t, s)
	if img := listed(t, s)[team.String()+":v1"]; !img.Complete {
		t.Errorf("%+v", img)
	}
}

func TestPinsBeyondTheBoundAreRefused(t *testing.T) {
	opts := bounded
	opts.Tags = freshness
	s := openStore(t, t.TempDir(), opts)
	first, second := filltest.New(5<<20, 1), filltest.New(5<<20, 2)
	pullTag(t, s, team, "v1", newImage("a", first), first)
	pullTag(t, s, team, "v2", newImage("b", second)) // without its layer
	if err := s.Pin(team, "v1"); err != nil {
		t.Fatal(err)
	}
	err := s.Pin(team, "v2")
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "5246976 bytes beside the 5246976 that are pinned make 10493952") {
		t.Errorf("got %v", err)
	}
	if pins, err := s.Pins(); err != nil || len(pins) != 1 {
		t.Errorf("pins: %v, %v", pins, err)
	}
}

// Eviction must not go on forever if it finds nothing to evict.
func TestBlobsArePassedThroughIfPinsFillTheCache(t *testing.T) {
	opts := bounded
	opts.Tags = freshness
	s := openStore(t, t.TempDir(), opts)
	layer, small := filltest.New(6<<20, 1), filltest.New(100_000, 2)
	pullTag(t, s, team, "v1", newImage("a", layer), layer)
	pullLayers(t, s, small)
	if err := s.Pin(team, "v1"); err != nil {
		t.Fatal(err)
	}
	if state := pull(t, s, filltest.New(4<<20, 3)); state != Bypass {
		t.Errorf("a blob for which no space can be freed: %s", state)
	}
	if state := pull(t, s, small); state != Hit {
		t.Errorf("a blob whose eviction would not suffice: %s", state)
	}
}

func TestPinnedImageIsNotRemoved(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	layer := filltest.New(10_000, 1)
	pullTag(t, s, team, "v1", newImage("a", layer), layer)
	pullTag(t, s, other, "v1", newImage("b", layer))
	if err := s.Pin(team, "v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(team, "v1"); !errors.Is(err, ErrPinned) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Remove(other, "v1"); err != nil {
		t.Error(err)
	}
	if !listed(t, s)[team.String()+":v1"].Complete {
		t.Error("a layer of the pinned image was removed")
	}
}

func TestOnlyImagesCanBePinned(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	layer := filltest.New(10_000, 1)
	pullTag(t, s, team, "v1", newImage("a", layer), layer)
	for _, pin := range []records.Pin{{Repository: team, Reference: "v2"}, {Repository: other, Reference: "v1"}, {Repository: team, Reference: layer.Digest.String()}} {
		if err := s.Pin(pin.Repository, pin.Reference); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("pin %s: %v", pin, err)
		}
	}
	if err := s.Unpin(team, "v1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unpin of an image that is not pinned: %v", err)
	}
	for range 2 {
		if err := s.Pin(team, "v1"); err != nil {
			t.Errorf("pin an image: %v", err)
		}
	}
}
