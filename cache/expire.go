package cache

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
)

// Expiry says since when, and by which rule, an image has expired.
type Expiry = records.Expiry

// Verdict says that a lifecycle rule has expired an image of a repository.
type Verdict = records.Verdict

// Doom has images that have expired be evicted before all others, the oldest
// expiry first, each before what it needs and none of the others does. It takes
// the place of earlier calls, and holds after a restart. What is used after that,
// by an image or by itself, goes with the others again until the next call, or
// the next start.
//
// A digest that several repositories hold has expired when it has in all of
// them. Nothing that another image needs goes with an expired one. Verdicts on
// what is not in the cache are dropped. That a disk does not take them is no
// error.
func (s *Store) Doom(verdicts []Verdict) error {
	if err := s.awaitScan(); err != nil {
		return err
	}
	s.dooming.Lock()
	defer s.dooming.Unlock()
	kept, err := s.doom(verdicts)
	if err != nil {
		return err
	}
	if err := s.index.ReplaceVerdicts(kept); err != nil {
		s.trouble(slog.LevelWarn, "what lifecycle rules have expired was not recorded; a restart forgets it", err)
	}
	return nil
}

// doomAgain dooms what had expired when the process before this one ended.
func (s *Store) doomAgain() error {
	s.dooming.Lock()
	defer s.dooming.Unlock()
	verdicts, err := s.index.Verdicts()
	if err != nil || len(verdicts) == 0 {
		return err
	}
	_, err = s.doom(verdicts)
	return err
}

// doom is Doom without the records. It returns the verdicts on what is here. The
// caller holds s.dooming.
func (s *Store) doom(verdicts []Verdict) (here []Verdict, err error) {
	watch := s.recency.Watch() // what comes from now on may need what looks doomed
	defer s.recency.EndWatch(watch)
	c, err := s.readCatalog()
	if err != nil {
		return nil, err
	}
	for _, v := range verdicts {
		if _, ok := c.manifests[v.Digest]; ok {
			here = append(here, v)
		}
	}
	digests, err := s.expiredEverywhere(here)
	if err != nil {
		return nil, err
	}
	s.recency.Expire(c.doomed(digests), watch)
	return here, nil
}

// Verdicts returns what the latest call of Doom kept, less what was evicted or
// removed since. It holds after a restart.
func (s *Store) Verdicts() ([]Verdict, error) { return s.index.Verdicts() }

// expiredEverywhere returns the digests that have expired in all repositories
// that are known to hold them, the oldest expiry first. Such a digest has
// expired when it did in the last of them.
func (s *Store) expiredEverywhere(verdicts []Verdict) ([]digest.Digest, error) {
	in := make(map[digest.Digest]map[Repository]bool)
	since := make(map[digest.Digest]time.Time)
	for _, v := range verdicts {
		if in[v.Digest] == nil {
			in[v.Digest] = make(map[Repository]bool)
		}
		in[v.Digest][v.Repository] = true
		if since[v.Digest].Before(v.Since) {
			since[v.Digest] = v.Since
		}
	}
	var digests []digest.Digest
	for d, repos := range in {
		all, err := s.index.Repositories(d, 0)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(all, func(r Repository) bool { return !repos[r] }) {
			digests = append(digests, d)
		}
	}
	slices.SortFunc(digests, func(a, b digest.Digest) int {
		if c := since[a].Compare(since[b]); c != 0 {
			return c
		}
		return strings.Compare(string(a), string(b))
	})
	return digests, nil
}

// doomed returns the expired images and what only they need: each image in its
// place, what it needs after the last one that does.
func (c *catalog) doomed(expired []digest.Digest) []digest.Digest {
	goes := make(map[digest.Digest]bool)
	for _, d := range expired {
		goes[d] = true
	}
	var stay []digest.Digest
	for _, img := range c.images {
		if !goes[img.Digest] {
			stay = append(stay, img.Digest)
		}
	}
	needed := c.closure(stay...)
	all := descend(expired, func(d digest.Digest) []digest.Digest { return c.manifests[d].Children })
	return slices.DeleteFunc(all, func(d digest.Digest) bool { return needed[d] })
}
