package cache

import (
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/records"
)

// Pin keeps an image that is in the cache from eviction: all of it that is in the cache, what
// of it is fetched later, and what its tag moves to. It returns fs.ErrNotExist if the
// repository is not known to have the image, and ENOSPC, with the arithmetic, if the cache
// cannot hold it beside the others.
func (s *Store) Pin(repo Repository, reference string) error {
	return s.pin(repo, reference, false)
}

// PinAllPlatforms is Pin for all platforms of an index: those that are not in the cache count
// as far as their manifests are, and are among [Store.MissingPinned]. It makes an earlier pin
// of some platforms one of all.
func (s *Store) PinAllPlatforms(repo Repository, reference string) error {
	return s.pin(repo, reference, true)
}

func (s *Store) pin(repo Repository, reference string, allPlatforms bool) error {
	if err := s.awaitLoaded(); err != nil {
		return err
	}
	return s.blobs.WithoutEvictions(func() error { // else what is to be pinned may be evicted
		return s.pins.Add(records.Pin{Repository: repo, Reference: reference}, allPlatforms)
	})
}

// Keep pins an image, by a tag or a digest, that the caller brings whole, until Release or the end
// of the store. It counts as far as its manifests are in the cache, and is not fetched: the caller
// calls Keep again once it has more manifests. The error is ENOSPC, with the arithmetic, if the
// cache cannot hold it beside what is pinned.
func (s *Store) Keep(repo Repository, reference string) error {
	if err := s.awaitLoaded(); err != nil {
		return err
	}
	return s.blobs.WithoutEvictions(func() error {
		return s.pins.AddKept(records.Pin{Repository: repo, Reference: reference})
	})
}

// KeepNext pins the image that a tag of Options.Keep is to name once the caller has brought it
// whole, beside the one that the tag names, until EndNext, also after a restart. It counts as Keep
// counts. It replaces an earlier next image of the tag. The error is that of Keep, or says that it
// could not be recorded.
func (s *Store) KeepNext(repo Repository, tag string, d digest.Digest) error {
	if err := s.awaitLoaded(); err != nil {
		return err
	}
	return s.blobs.WithoutEvictions(func() error { return s.pins.SetNext(repo, tag, d) })
}

// EndNext undoes [Store.KeepNext], if there is a next image. The error says that a restart will
// pin it again.
func (s *Store) EndNext(repo Repository, tag string) error { return s.pins.EndNext(repo, tag) }

// Release undoes [Store.Keep]. What Options.Keep or Options.Pin pins stays pinned.
func (s *Store) Release(repo Repository, reference string) {
	s.pins.RemoveKept(records.Pin{Repository: repo, Reference: reference})
}

// Unpin lets an image be evicted again. It returns fs.ErrNotExist if it was not pinned, and
// [ErrConfigured] if Options.Pin pins it as well.
func (s *Store) Unpin(repo Repository, reference string) error {
	if err := s.awaitLoaded(); err != nil {
		return err
	}
	return s.pins.Remove(records.Pin{Repository: repo, Reference: reference})
}

// Pins returns all pins, sorted by name. It waits until the folder is loaded.
func (s *Store) Pins() ([]PinInfo, error) {
	if err := s.awaitLoaded(); err != nil {
		return nil, err
	}
	return s.pins.List()
}

// MissingPinned returns what the pins hold and the cache does not have, as far as it should
// be fetched: see [pins.Pins.Missing]. It waits until the folder is loaded, and reads the
// records of everything that is pinned.
func (s *Store) MissingPinned() ([]Missing, error) {
	if err := s.awaitLoaded(); err != nil {
		return nil, err
	}
	return s.pins.Missing()
}

// MissingPinnedChanged returns a channel that has a value when [Store.MissingPinned] may
// return something new. One receiver gets it.
func (s *Store) MissingPinnedChanged() <-chan struct{} { return s.pins.Changed() }
