package cache

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/records"
)

// Naming returns the manifests that name each blob and manifest of a repository, of those that its
// clients are served from the cache. It reads the records of all manifests, so it is not for the way
// of a hit.
func (s *Store) Naming(repo Repository) (map[digest.Digest][]Manifest, error) {
	children := make(map[digest.Digest]records.Blob)
	err := s.index.EachManifest(func(d digest.Digest, rec records.Blob) error {
		if rec.IsManifest() {
			children[d] = rec
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := make(map[digest.Digest][]Manifest)
	for d, rec := range children {
		member, err := s.member(repo, d)
		if err != nil || !member.served {
			continue
		}
		m := Manifest{Digest: d, MediaType: rec.MediaType, Size: rec.Size}
		for _, child := range rec.Children {
			all[child] = append(all[child], m)
		}
	}
	return all, nil
}

// FetchedAt returns when a manifest was fetched that is in the cache, and false if there is none.
func (s *Store) FetchedAt(d digest.Digest) (time.Time, bool) {
	rec, err := s.index.Blob(d)
	return rec.Fetched, err == nil && rec.IsManifest() && !rec.Fetched.IsZero()
}
