package lifecycle

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Policy is a lifecycle policy. It does not change and is safe for
// concurrent use. The zero value expires nothing.
type Policy struct {
	rules         []rule // by ascending priority number
	notUnderstood Mistakes
}

// NotUnderstood returns what was not understood of a policy that ECR stores. It is
// empty for local policies.
func (p Policy) NotUnderstood() Mistakes { return slices.Clone(p.notUnderstood) }

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
//   - an index in the archive keeps its children all the same;
//   - an index that has not been read and stays keeps all untagged images except
//     indexes; [Policy.Unread] tells which indexes to read.
func (p Policy) Expired(images []Image, now time.Time) []Expired {
	expired := p.evaluate(unique(images), now, listsAnything)
	return slices.SortedFunc(maps.Values(expired), func(a, b Expired) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Digest, b.Digest))
	})
}

// Unread returns the indexes to read before Expired can say that all images have
// expired that ECR expires: those that stay and have not been read, youngest first.
// It returns none if reading them would change nothing for the images that matter.
func (p Policy) Unread(images []Image, now time.Time, matters func(digest.Digest) bool) []digest.Digest {
	all := unique(images)
	expired, atMost := p.evaluate(all, now, listsAnything), p.evaluate(all, now, listsNothing)
	kept := func(dgst digest.Digest) bool { _, ok := expired[dgst]; return !ok && matters(dgst) }
	if !slices.ContainsFunc(slices.Collect(maps.Keys(atMost)), kept) {
		return nil
	}
	var indexes []*Image
	for dgst, img := range all {
		if _, ok := expired[dgst]; !ok && img.unread() {
			indexes = append(indexes, img)
		}
	}
	slices.SortFunc(indexes, youngestFirst)
	digests := make([]digest.Digest, len(indexes))
	for i, img := range indexes {
		digests[i] = img.Digest
	}
	return digests
}

// CountsPulls reports whether a rule counts from the last pull of an image, so that
// fetching a manifest may change what the rule does at ECR.
func (p Policy) CountsPulls() bool {
	return slices.ContainsFunc(p.rules, func(r rule) bool { return r.count == sinceImagePulled })
}

// unique returns the images by digest. Of several with the same digest the first
// counts.
func unique(images []Image) map[digest.Digest]*Image {
	all := make(map[digest.Digest]*Image, len(images))
	for i := range images {
		if img := &images[i]; all[img.Digest] == nil {
			all[img.Digest] = img
		}
	}
	return all
}

// youngestFirst orders images as rules count them.
func youngestFirst(a, b *Image) int {
	return cmp.Or(b.available().Compare(a.available()), cmp.Compare(a.Digest, b.Digest))
}

// evaluate returns the images that have expired.
func (p Policy) evaluate(all map[digest.Digest]*Image, now time.Time, unread unread) map[digest.Digest]Expired {
	var selectable []*Image
	for _, img := range all {
		if img.Subject == "" && !img.Pushed.IsZero() {
			selectable = append(selectable, img)
		}
	}
	slices.SortFunc(selectable, youngestFirst)
	expired := p.apply(selectable, now)
	relate(all, unread).settle(expired)
	return expired
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
