package cache

import (
	"errors"

	"github.com/opencontainers/go-digest"
)

// Lack is something that a pin holds and that is not in the cache.
type Lack struct {
	Repository
	Digest   digest.Digest
	Size     int64 // by the manifest that names it, in bytes; 0 where that does not say
	Manifest bool  // or an index
}

// Lacking returns what the pins hold and the cache has not, as far as that is to
// be fetched: what was here and was damaged, and of pins of all platforms
// everything. Once the manifests among it are here there may be more. What is on
// its way is among it. Where all platforms do not fit into the cache, what of
// them was never here is left out, and the error is ENOSPC with the arithmetic.
//
// It waits for the scan, and reads the records of all that is pinned.
func (s *Store) Lacking() ([]Lack, error) {
	if err := s.awaitScan(); err != nil {
		return nil, err
	}
	pins, err := s.pins()
	if err != nil {
		return nil, err
	}
	beyond := s.pinsFit()
	fit, leftOut := beyond == nil, false
	var all []Lack
	seen := make(map[Lack]bool)
	for pin, rec := range pins {
		err = errors.Join(err, s.walkPin(pin, func(d digest.Digest, known bool) error {
			it, here := s.recency.Get(d)
			switch {
			case here && !it.Partial, d == d.Algorithm().FromBytes(nil):
				return nil
			case !known && !rec.AllPlatforms:
				return nil
			case !known && !fit:
				leftOut = true
				return nil
			}
			size, manifest, err := s.announced(pin.Repository, d)
			l := Lack{pin.Repository, d, size, manifest}
			if !seen[l] {
				seen[l] = true
				all = append(all, l)
			}
			return err
		}))
	}
	if leftOut {
		err = errors.Join(err, beyond)
	}
	return all, err
}

// MissingManifests returns those manifests of an image, an index' platforms for
// the most part, that are not in the cache. Only what is here tells which these
// are: once they are fetched there may be more.
func (s *Store) MissingManifests(repo Repository, reference string) ([]Lack, error) {
	var all []Lack
	err := s.walkPin(Pin{Repository: repo, Reference: reference}, func(d digest.Digest, _ bool) error {
		size, manifest, err := s.announced(repo, d)
		if _, here := s.recency.Get(d); manifest && !here {
			all = append(all, Lack{repo, d, size, manifest})
		}
		return err
	})
	return all, err
}

// pinsFit returns ENOSPC where the cache cannot hold all that the pins do.
func (s *Store) pinsFit() error {
	here := s.recency.Bytes() - s.evictable()
	s.pinned.mu.Lock()
	all := s.pinned.bytes
	s.pinned.mu.Unlock()
	return s.space.CheckPins(here, all)
}

// PinsLack returns a channel that has a value when [Store.Lacking] may have
// something new to tell. One who receives gets it.
func (s *Store) PinsLack() <-chan struct{} { return s.lacks }

func (s *Store) wantLacking() {
	select {
	case s.lacks <- struct{}{}:
	default: // it is there already
	}
}
