package lifecycle

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/larder-registry/larder/upstream/name"
)

// selection says which images a rule selects: those of a storage class, by ECR's
// word, that meet its requirements for tags.
type selection struct {
	stored string // statusActive or statusArchived; "" for images of any status
	status tagStatus
	tags   []tagPattern // for tagged: each matches at least one tag of the image
}

// everything selects all images.
var everything = selection{status: anyStatus}

// tagStatus is whether a rule selects tagged images. The values are ECR's.
type tagStatus string

const (
	tagged    tagStatus = "tagged"
	untagged  tagStatus = "untagged"
	anyStatus tagStatus = "any"
)

func (s selection) matches(img *Image) bool {
	if s.stored != "" && cmp.Or(img.Status, statusActive) != s.stored {
		return false
	}
	switch s.status {
	case anyStatus:
		return true
	case untagged:
		return len(img.Tags) == 0
	default:
		for _, pattern := range s.tags {
			if !slices.ContainsFunc(img.Tags, pattern.matches) {
				return false
			}
		}
		return len(img.Tags) > 0
	}
}

// equal reports whether both selections always select the same images.
func (s selection) equal(other selection) bool {
	set := func(patterns []tagPattern) map[tagPattern]bool {
		all := make(map[tagPattern]bool)
		for _, p := range patterns {
			all[p] = true
		}
		return all
	}
	return s.stored == other.stored && s.status == other.status && maps.Equal(set(s.tags), set(other.tags))
}

// tagPattern is a pattern of [name.Glob] for tags, or a prefix in which a star is
// literal.
type tagPattern struct {
	text          string
	literalPrefix bool
}

func prefixPattern(prefix string) tagPattern {
	if strings.Contains(prefix, "*") {
		return tagPattern{text: prefix, literalPrefix: true}
	}
	return tagPattern{text: prefix + "*"}
}

func (p tagPattern) matches(tag string) bool {
	if p.literalPrefix {
		return strings.HasPrefix(tag, p.text)
	}
	return name.Glob(p.text, tag)
}
