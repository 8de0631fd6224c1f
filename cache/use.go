package cache

import (
	"cmp"
	"slices"

	"github.com/opencontainers/go-digest"
)

// maxDepth bounds how deep indexes may nest: a registry's own are one or two
// levels deep.
const maxDepth = 4

// useImage notes that a manifest was used, and with it all that it needs, since
// a runtime does not ask again for layers that it holds. Once per tick is
// enough; a hit costs a look at a map.
func (s *Store) useImage(d digest.Digest) {
	if s.recency.UsedLately(d, s.opts.Now()) {
		return
	}
	s.useClosure(d)
}

// useClosure goes from the image to its parts: see recency. What has no parts
// comes last, large before small, since all of it has the same age.
func (s *Store) useClosure(d digest.Digest) {
	manifests := make(map[digest.Digest]bool)
	closure := descend([]digest.Digest{d}, func(d digest.Digest) []digest.Digest {
		parts, ok := s.index.Children(d)
		manifests[d] = ok
		return parts
	})
	bytes := make(map[digest.Digest]int64)
	for _, d := range closure {
		it, _ := s.recency.Get(d)
		bytes[d] = it.Bytes
	}
	slices.SortStableFunc(closure, func(a, b digest.Digest) int {
		switch {
		case manifests[a] && manifests[b]:
			return 0
		case manifests[a]:
			return -1
		case manifests[b]:
			return 1
		}
		return cmp.Compare(bytes[b], bytes[a])
	})
	now := s.opts.Now()
	for _, d := range closure {
		s.recency.Use(d, now)
	}
}

// descend lists what the roots lead to, themselves included: each once, after
// all that leads to it, and no earlier than the last root that does. A root
// that leads to none before it keeps its place among them.
func descend(roots []digest.Digest, children func(digest.Digest) []digest.Digest) []digest.Digest {
	var backwards []digest.Digest
	seen := make(map[digest.Digest]bool)
	var visit func(d digest.Digest, depth int)
	visit = func(d digest.Digest, depth int) {
		if seen[d] {
			return
		}
		seen[d] = true
		if depth > 0 {
			for _, child := range slices.Backward(children(d)) {
				visit(child, depth-1)
			}
		}
		backwards = append(backwards, d)
	}
	for _, root := range slices.Backward(roots) {
		visit(root, maxDepth)
	}
	slices.Reverse(backwards)
	return backwards
}
