package cache

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Touched records, to the second, that the upstream was told at this time that a
// manifest of the repository is in use. It is forgotten with the manifest, and
// may be forgotten in a crash, or with a lost index: then it is told once more.
func (s *Store) Touched(repo Repository, d digest.Digest, at time.Time) error {
	return s.index.PutTouch(repo, d, at)
}
