package cache

import "github.com/opencontainers/go-digest"

// maxDepth bounds how deep indexes may nest: a registry's own are one or two
// levels deep.
const maxDepth = 4

// useImage notes that a manifest was used, and with it all that it needs, since
// a runtime does not ask again for layers that it holds. Once per tick is
// enough; a hit costs a look at a map.
func (s *Store) useImage(d digest.Digest) {
	if s.recency.isRecent(d) {
		return
	}
	s.useClosure(d, maxDepth)
}

// useClosure goes from the image to its parts: see recency.
func (s *Store) useClosure(d digest.Digest, depth int) {
	s.recency.use(d, s.opts.Now())
	var rec blobRecord
	if depth == 0 || s.index.get(blobKey(d), &rec) != nil {
		return
	}
	for _, child := range rec.Children {
		s.useClosure(child, depth-1)
	}
}
