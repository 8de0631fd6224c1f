package cache

import (
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"
)

const touchedPrefix = "touched/"

func touchedKey(r Repository, d digest.Digest) []byte {
	return []byte(touchedPrefix + imageName(r, d.String()))
}

// Touched records, to the second, that the upstream was told at this time that a
// manifest of the repository is in use. It is forgotten with the manifest, and
// may be forgotten in a crash, or with a lost index: then it is told once more.
func (s *Store) Touched(repo Repository, d digest.Digest, at time.Time) error {
	return s.index.note(entry{touchedKey(repo, d), at.Unix()})
}

// touches reads what Touched recorded.
func (ix *index) touches() (map[member]time.Time, error) {
	all := make(map[member]time.Time)
	err := ix.each(touchedPrefix, func(item *badger.Item) error {
		var at int64
		repo, d, ok := strings.Cut(string(item.Key()[len(touchedPrefix):]), "@")
		if ok && unmarshal(item, &at) == nil {
			all[member{cutRepository(repo), digest.Digest(d)}] = time.Unix(at, 0)
		}
		return nil
	})
	return all, err
}

// aboutImage returns the keys of what is recorded about an image of a repository,
// and goes with it. A record that cannot be read counts as one.
func (ix *index) aboutImage(r Repository, d digest.Digest) [][]byte {
	var keys [][]byte
	for _, key := range [][]byte{verdictKey(r, d), touchedKey(r, d)} {
		if ix.has(key) {
			keys = append(keys, key)
		}
	}
	return keys
}
