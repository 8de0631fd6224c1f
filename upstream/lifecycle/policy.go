package lifecycle

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Policy is a valid lifecycle policy. It does not change and is safe for
// concurrent use. The zero value expires nothing.
type Policy struct {
	rules []rule // by ascending priority number
}

// Expired is an image that has expired.
type Expired struct {
	Digest digest.Digest
	Rule   int       // the priority of the rule that expired it
	Since  time.Time // when it expired
}

// Expired returns the images that have expired at the time now, ordered by when
// they expired, oldest first. The images must be all images of the repository;
// of several with the same digest the first counts. As at ECR, an image that an
// index lists stays as long as the index does, and a referrer expires with its
// subject.
//
// Where ECR's documentation leaves a question open, the answer here expires less:
//   - an image whose push time is unknown neither expires nor is counted;
//   - a referrer is not selected by rules, and stays if its subject is missing;
//   - an index in the archive keeps its children all the same.
func (p Policy) Expired(images []Image, now time.Time) []Expired {
	all := make(map[digest.Digest]*Image, len(images))
	var selectable []*Image
	for i := range images {
		img := &images[i]
		if all[img.Digest] != nil {
			continue
		}
		all[img.Digest] = img
		if img.Subject == "" && !img.Pushed.IsZero() {
			selectable = append(selectable, img)
		}
	}
	slices.SortFunc(selectable, func(a, b *Image) int {
		return cmp.Or(b.available().Compare(a.available()), cmp.Compare(a.Digest, b.Digest))
	})
	expired := p.apply(selectable, now)
	relate(all).settle(expired)
	return slices.SortedFunc(maps.Values(expired), func(a, b Expired) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Digest, b.Digest))
	})
}

// apply returns the images that the rules expire, without regard to the relations
// between images. The images must be ordered youngest first. A rule counts every
// image that it selects, and acts on those that no earlier rule selects.
func (p Policy) apply(images []*Image, now time.Time) map[digest.Digest]Expired {
	expired := make(map[digest.Digest]Expired)
	claimed := make([]bool, len(images)) // images that an earlier rule selects
	for _, rule := range p.rules {
		var selected []*Image
		for i, img := range images {
			if !rule.selection.matches(img) {
				continue
			}
			selected = append(selected, img)
			if claimed[i] {
				continue
			}
			claimed[i] = true
			since, acts := rule.actsSince(selected, now)
			if acts && rule.expires {
				expired[img.Digest] = Expired{img.Digest, rule.priority, since}
			}
		}
	}
	return expired
}
