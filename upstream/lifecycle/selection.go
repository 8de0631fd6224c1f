package lifecycle

import (
	"cmp"
	"slices"
	"strings"
)

// selection says which images a rule selects: those of a storage class, by ECR's
// word, that meet its requirements for tags.
type selection struct {
	stored string // statusActive or statusArchived
	status tagStatus
	tags   []TagPattern // for tagged: each matches at least one tag of the image
}

// tagStatus is whether a rule selects tagged images. The values are ECR's.
type tagStatus string

const (
	tagged    tagStatus = "tagged"
	untagged  tagStatus = "untagged"
	anyStatus tagStatus = "any"
)

func (s selection) matches(img *Image) bool {
	if cmp.Or(img.Status, statusActive) != s.stored {
		return false
	}
	switch s.status {
	case anyStatus:
		return true
	case untagged:
		return len(img.Tags) == 0
	default:
		for _, pattern := range s.tags {
			if !slices.ContainsFunc(img.Tags, pattern.Match) {
				return false
			}
		}
		return true
	}
}

// equal reports whether both selections always select the same images.
func (s selection) equal(other selection) bool {
	set := func(tags []TagPattern) []TagPattern {
		tags = slices.SortedFunc(slices.Values(tags), slices.Compare)
		return slices.CompactFunc(tags, slices.Equal)
	}
	return s.stored == other.stored && s.status == other.status &&
		slices.EqualFunc(set(s.tags), set(other.tags), slices.Equal)
}

// TagPattern is a tag pattern of ECR, in which a star stands for any text, the
// empty text too. It is kept as the literal parts between the stars.
type TagPattern []string

// ParseTagPattern reads a pattern. Every text is one.
func ParseTagPattern(pattern string) TagPattern { return strings.Split(pattern, "*") }

// prefixPattern matches tags that begin with prefix. A star in prefix is literal.
func prefixPattern(prefix string) TagPattern { return TagPattern{prefix, ""} }

// Match reports whether the pattern matches the whole tag.
func (p TagPattern) Match(tag string) bool {
	last := len(p) - 1
	if last == 0 {
		return tag == p[0]
	}
	rest, ok := strings.CutPrefix(tag, p[0])
	if !ok {
		return false
	}
	for _, part := range p[1:last] {
		// The first occurrence is the right one: it leaves the most for the rest.
		if _, rest, ok = strings.Cut(rest, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(rest, p[last])
}
