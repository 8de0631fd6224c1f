package cache

import (
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"
)

// Expired is an image that the lifecycle policy of its repository has expired.
type Expired struct {
	Repository Repository
	Digest     digest.Digest
	Since      time.Time
}

// Repositories returns those of which a tag is in the cache.
func (s *Store) Repositories() ([]Repository, error) {
	var all []Repository
	err := s.index.each(tagPrefix, func(item *badger.Item) error {
		repo, _ := splitTagKey(string(item.Key()))
		if len(all) == 0 || all[len(all)-1] != repo { // keys are in order
			all = append(all, repo)
		}
		return nil
	})
	return all, err
}

// Children returns what a cached index or manifest names, and false where it is
// not in the cache.
func (s *Store) Children(d digest.Digest) ([]digest.Digest, bool) {
	var rec blobRecord
	if err := s.index.get(blobKey(d), &rec); err != nil || rec.MediaType == "" {
		return nil, false
	}
	return rec.Children, true
}

// Doom has images that have expired be evicted before all others, the oldest
// expiry first, each before what it alone needs. It takes the place of earlier
// calls. What is used after that, by an image or by itself, goes with the others
// again.
//
// A digest that several repositories hold has expired when it has in all of
// them. Nothing that another image needs goes with an expired one.
func (s *Store) Doom(expired []Expired) error {
	c, err := s.catalog()
	if err != nil {
		return err
	}
	digests, err := s.expiredEverywhere(expired)
	if err != nil {
		return err
	}
	s.recency.doom(c.doomed(digests))
	return nil
}

// expiredEverywhere returns the digests that have expired in all repositories
// that are known to hold them.
func (s *Store) expiredEverywhere(expired []Expired) ([]digest.Digest, error) {
	in := make(map[digest.Digest]map[Repository]bool)
	for _, e := range expired {
		if in[e.Digest] == nil {
			in[e.Digest] = make(map[Repository]bool)
		}
		in[e.Digest][e.Repository] = true
	}
	sorted := slices.SortedFunc(slices.Values(expired), func(a, b Expired) int { return a.Since.Compare(b.Since) })
	var digests []digest.Digest
	for _, e := range sorted {
		if in[e.Digest] == nil {
			continue // seen already
		}
		everywhere := true
		prefix := membersOf(e.Digest)
		err := s.index.each(prefix, func(item *badger.Item) error {
			upstream, name, _ := strings.Cut(string(item.Key())[len(prefix):], "/")
			everywhere = everywhere && in[e.Digest][Repository{upstream, name}]
			return nil
		})
		if err != nil {
			return nil, err
		}
		if everywhere {
			digests = append(digests, e.Digest)
		}
		delete(in, e.Digest)
	}
	return digests, nil
}

// doomed returns the expired images, each followed by what no image that stays
// needs.
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
	seen := c.closure(stay...)
	var doomed []digest.Digest
	var visit func(d digest.Digest)
	visit = func(d digest.Digest) {
		if seen[d] {
			return
		}
		seen[d] = true
		doomed = append(doomed, d)
		for _, child := range c.manifests[d].Children {
			visit(child)
		}
	}
	for _, d := range expired {
		visit(d)
	}
	return doomed
}
