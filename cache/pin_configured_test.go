package cache

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/larder-registry/larder/cache/fill/filltest"
	"golang.org/x/sys/unix"
)

// v1Pinned pins the images of team whose tag begins with v1.
func v1Pinned(opts Options) Options {
	opts.Tags = freshness
	opts.Pin = func(image string) bool { return strings.HasPrefix(image, team.String()+":v1") }
	return opts
}

func TestConfiguredPinsApplyToTagsThatArrive(t *testing.T) {
	dir := t.TempDir()
	layers := []*filltest.Origin{filltest.New(10_000, 1), filltest.New(10_000, 2), filltest.New(10_000, 3)}
	names := []string{"v1", "v1.2", "v2"}
	s := openStore(t, dir, Options{Tags: freshness})
	pullTag(t, s, team, "v1", newImage("v1", layers[0]), layers[0]) // before the pin is configured
	closeStore(t, s)

	s = openStore(t, dir, v1Pinned(Options{}))
	for i := 1; i < 3; i++ {
		pullTag(t, s, team, names[i], newImage(names[i], layers[i]), layers[i])
	}
	for range 2 { // the second time after a restart
		evictAll(t, s)
		all := listed(t, s)
		for i, want := range []bool{true, true, false} {
			img := all[team.String()+":"+names[i]]
			if img.Pinned != want || img.Complete != want {
				t.Errorf("%s: %+v", names[i], img)
			}
		}
		pins, err := s.Pins()
		if err != nil || len(pins) != 2 || pins[0] != (PinInfo{Image: team.String() + ":v1", Digest: newImage(names[0], layers[0]).Digest, Configured: true}) {
			t.Errorf("pins: %v, %v", pins, err)
		}
		if _, err := s.Remove(team, "v1"); !errors.Is(err, ErrPinned) {
			t.Errorf("remove: %v", err)
		}
		closeStore(t, s)
		s = openStore(t, dir, v1Pinned(Options{}))
	}

	closeStore(t, s) // and then without the configuration
	s = openStore(t, dir, Options{Tags: freshness})
	evictAll(t, s)
	if n := s.items.Len(); n > 0 {
		t.Errorf("%d blobs are protected by pins that are no longer configured", n)
	}
}

func TestConfiguredPinFollowsItsTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), v1Pinned(Options{}))
		before, after := filltest.New(10_000, 1), filltest.New(10_000, 2)
		pullTag(t, s, team, "v1", newImage("old", before), before)
		pass(freshness.TTL)
		pullTag(t, s, team, "v1", newImage("new", after), after)
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

func TestUnpinRefusesAConfiguredPin(t *testing.T) {
	s := openStore(t, t.TempDir(), v1Pinned(Options{}))
	layer := filltest.New(10_000, 1)
	pullTag(t, s, team, "v1", newImage("a", layer), layer)
	for range 2 { // the second time the image is also pinned by a command
		if err := s.Unpin(team, "v1"); !errors.Is(err, ErrConfigured) {
			t.Errorf("unpin: %v", err)
		}
		evictAll(t, s)
		if !listed(t, s)[team.String()+":v1"].Complete {
			t.Error("the image was evicted")
		}
		if err := s.Pin(team, "v1"); err != nil {
			t.Errorf("pin: %v", err)
		}
	}
}

func TestConfiguredPinBeyondTheBoundIsRefusedAndLoggedOnce(t *testing.T) {
	dir := t.TempDir()
	var log logBuffer
	opts := v1Pinned(bounded)
	opts.Log = log.log()
	opts.Tags.TTL = 0
	s := openStore(t, dir, opts)
	first, second := filltest.New(5<<20, 1), filltest.New(5<<20, 2)
	pullTag(t, s, team, "v1.1", newImage("a", first), first)
	for range 3 {
		pullTag(t, s, team, "v1.2", newImage("b", second))
	}
	const arithmetic = "5246976 bytes beside the 5246976 that are pinned make 10493952"
	if n := log.lines(arithmetic); n != 1 || log.lines("it does not fit") != 1 {
		t.Errorf("it was logged %d times:\n%s", n, &log.text)
	}
	all := listed(t, s)
	if !all[team.String()+":v1.1"].Pinned || all[team.String()+":v1.2"].Pinned {
		t.Errorf("%+v", all)
	}
	closeStore(t, s) // the sizes are the same after a restart
	s = openStore(t, dir, opts)
	loaded(t, s)
	if n := log.lines(arithmetic); n != 2 {
		t.Errorf("after a restart it was logged %d times:\n%s", n, &log.text)
	}
	if err := s.Unpin(team, "v1.2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unpin of a refused pin: %v", err)
	}
}

// missingPinned returns what is missing of pinned images. It fails the test if no change was
// announced.
func missingPinned(t *testing.T, s *Store) []Missing {
	t.Helper()
	select {
	case <-s.MissingPinnedChanged():
	default:
		t.Error("MissingPinnedChanged did not announce a change")
	}
	all, err := s.MissingPinned()
	if err != nil {
		t.Error(err)
	}
	return all
}

func TestPinOfAllPlatformsReportsUnpulledPlatformsAsMissing(t *testing.T) {
	layers := []*filltest.Origin{filltest.New(10_000, 1), filltest.New(10_000, 2)}
	amd, arm := newImage("amd", layers[0]), newImage("arm", layers[1])
	for name, pin := range map[string]func(*Store) error{
		"by command":                      func(s *Store) error { return s.PinAllPlatforms(team, "v1") },
		"after a pin of pulled platforms": func(s *Store) error { return errors.Join(s.Pin(team, "v1"), s.PinAllPlatforms(team, "v1")) },
		"by configuration":                nil,
		"of pulled platforms only":        func(s *Store) error { return s.Pin(team, "v1") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			opts := Options{Tags: freshness, PinAllPlatforms: true}
			if pin == nil {
				opts = v1Pinned(opts)
			}
			s := openStore(t, dir, opts)
			pullTag(t, s, team, "v1", newList(amd, arm))
			pullDigest(t, s, team, amd, layers[0])
			if pin != nil {
				if err := pin(s); err != nil {
					t.Fatal(err)
				}
			}
			if name == "of pulled platforms only" {
				if got := missingPinned(t, s); len(got) > 0 {
					t.Errorf("%v", got)
				}
				return
			}
			for range 2 { // the second time after a restart
				got := missingPinned(t, s)
				if len(got) != 1 || got[0] != (Missing{Repository: team, Digest: arm.Digest, Size: arm.Size, Manifest: true}) {
					t.Errorf("%v", got)
				}
				closeStore(t, s)
				s = openStore(t, dir, opts)
				loaded(t, s)
			}
			pullDigest(t, s, team, arm)
			got := missingPinned(t, s)
			if len(got) != 1 || got[0].Digest != layers[1].Digest || got[0].Manifest {
				t.Errorf("after the other manifest was pulled: %v", got)
			}
			pullLayers(t, s, layers[1])
			evictAll(t, s)
			if n := s.items.Len(); n != 5 {
				t.Errorf("%d of 5 blobs are protected", n)
			}
			if all, err := s.MissingPinned(); err != nil || len(all) > 0 {
				t.Errorf("after everything was pulled: %v, %v", all, err)
			}
		})
	}
}

func TestPinOfAllPlatformsThatDoNotFitIsRefused(t *testing.T) {
	opts := bounded
	opts.Tags = freshness
	s := openStore(t, t.TempDir(), opts)
	layers := []*filltest.Origin{filltest.New(5<<20, 1), filltest.New(5<<20, 2)}
	amd, arm := newImage("amd", layers[0]), newImage("arm", layers[1])
	pullTag(t, s, team, "v1", newList(amd, arm))
	pullDigest(t, s, team, amd, layers[0])
	pullDigest(t, s, team, arm)
	if err := s.Pin(team, "v1"); !errors.Is(err, unix.ENOSPC) { // both manifests have been pulled
		t.Errorf("pin of both: %v", err)
	}
	if err := s.PinAllPlatforms(team, "v1"); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("pin of all: %v", err)
	}
}

// A pin of all platforms may exceed the bound once more of its manifests are known. Then the
// missing blobs are not reported, so that they are not fetched in vain.
func TestPlatformsThatDoNotFitAreNotReportedAsMissing(t *testing.T) {
	opts := bounded
	opts.Tags = freshness
	s := openStore(t, t.TempDir(), opts)
	layers := []*filltest.Origin{filltest.New(5<<20, 1), filltest.New(5<<20, 2)}
	amd, arm := newImage("amd", layers[0]), newImage("arm", layers[1])
	pullTag(t, s, team, "v1", newList(amd, arm))
	pullDigest(t, s, team, amd, layers[0])
	if err := s.PinAllPlatforms(team, "v1"); err != nil {
		t.Fatal(err)
	}
	pullDigest(t, s, team, arm)
	if all, err := s.MissingPinned(); len(all) > 0 || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v, %v", all, err)
	}
}

func TestDamagedPinnedBlobIsReportedAsMissing(t *testing.T) {
	for name, which := range map[string]int{"a layer": 0, "the manifest": 1} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir, Options{Tags: freshness})
			layer, unpinned := filltest.New(10_000, 1), filltest.New(10_000, 2)
			img := newImage("a", layer)
			pullTag(t, s, team, "v1", img, layer, unpinned)
			if err := s.Pin(team, "v1"); err != nil {
				t.Fatal(err)
			}
			if got := missingPinned(t, s); len(got) > 0 {
				t.Errorf("before: %v", got)
			}
			want := []Missing{{Repository: team, Digest: layer.Digest, Size: 10_000}, {Repository: team, Digest: img.Digest, Size: img.Size, Manifest: true}}[which]
			flip(t, s, want.Digest, 7)
			flip(t, s, unpinned.Digest, 7)
			if got, err := s.Scrub(t.Context(), nil); err != nil || got.Mismatches != 2 {
				t.Errorf("scrub: %+v, %v", got, err)
			}
			for range 2 { // the second time after a restart
				if got := missingPinned(t, s); len(got) != 1 || got[0] != want {
					t.Errorf("%v", got)
				}
				closeStore(t, s)
				s = openStore(t, dir, Options{Tags: freshness})
				evictAll(t, s)
			}
			pullDigest(t, s, team, img, layer)
			if got := missingPinned(t, s); len(got) > 0 || s.items.Len() != 2 {
				t.Errorf("after it was pulled again: %v, and %d blobs", got, s.items.Len())
			}
		})
	}
}
