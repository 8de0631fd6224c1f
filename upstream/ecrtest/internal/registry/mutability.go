package registry

import (
	"slices"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/lifecycle"
)

// TagMutability says which tags of a repository can move.
type TagMutability struct {
	// Immutable makes all tags immutable except those that match Except: patterns in
	// which * stands for any characters. If it is false, only those are immutable.
	Immutable bool
	Except    []string
}

// movable reports whether an existing tag may be moved to another manifest.
func (m TagMutability) movable(tag string) bool {
	excepted := slices.ContainsFunc(m.Except, func(p string) bool { return lifecycle.MatchTag(p, tag) })
	return m.Immutable == excepted
}

// String returns ECR's name of the setting, such as IMMUTABLE_WITH_EXCLUSION.
func (m TagMutability) String() string {
	name := "MUTABLE"
	if m.Immutable {
		name = "IMMUTABLE"
	}
	if len(m.Except) > 0 {
		name += "_WITH_EXCLUSION"
	}
	return name
}
