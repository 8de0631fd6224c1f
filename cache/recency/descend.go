package recency

import (
	"slices"

	"github.com/opencontainers/go-digest"
)

// MaxDepth bounds how deep indexes may nest: those of registries are one or two levels deep.
const MaxDepth = 4

// Descend lists the roots and everything they reach, parents before children: each digest
// once, after everything that reaches it. A root that no earlier root reaches keeps its
// place among the roots. It is the order of eviction for images.
func Descend(roots []digest.Digest, children func(digest.Digest) []digest.Digest) []digest.Digest {
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
		visit(root, MaxDepth)
	}
	slices.Reverse(backwards)
	return backwards
}
