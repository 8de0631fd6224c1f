package upstream

import (
	"cmp"
	"slices"
	"strings"
)

// selection is which images a rule is about: ECR calls it the rule's storage
// class and its tagging requirements.
type selection struct {
	stored string // statusActive or statusArchived
	status tagStatus
	tags   []tagPattern // for tagged: each must match one of the image's tags
}

// tagStatus is in the words of ECR.
type tagStatus string

const (
	tagged    tagStatus = "tagged"
	untagged  tagStatus = "untagged"
	anyStatus tagStatus = "any"
)

// The statuses of an image that rules select. Another one, on its way from one
// to the other, is in no selection.
const (
	statusActive   = "ACTIVE"
	statusArchived = "ARCHIVED"
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
			if !slices.ContainsFunc(img.Tags, pattern.matches) {
				return false
			}
		}
		return true
	}
}

// equal tells whether other selects the same images.
func (s selection) equal(other selection) bool {
	set := func(tags []tagPattern) []tagPattern {
		tags = slices.SortedFunc(slices.Values(tags), slices.Compare)
		return slices.CompactFunc(tags, slices.Equal)
	}
	return s.stored == other.stored && s.status == other.status &&
		slices.EqualFunc(set(s.tags), set(other.tags), slices.Equal)
}

// tagPattern is the literal parts of a pattern, between which anything may
// stand.
type tagPattern []string

func parseTagPattern(pattern string) tagPattern { return strings.Split(pattern, "*") }

// prefixPattern matches what begins with prefix, in which an asterisk is an
// asterisk.
func prefixPattern(prefix string) tagPattern { return tagPattern{prefix, ""} }

func (p tagPattern) matches(tag string) bool {
	last := len(p) - 1
	if last == 0 {
		return tag == p[0]
	}
	rest, ok := strings.CutPrefix(tag, p[0])
	if !ok {
		return false
	}
	for _, part := range p[1:last] {
		// The first place is the best one: it leaves most to what follows.
		if _, rest, ok = strings.Cut(rest, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(rest, p[last])
}
