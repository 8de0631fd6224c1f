package lifecycle

import (
	"cmp"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
)

// relations are the dependencies between the images of a repository: children
// depend on their index, and referrers on their subject.
type relations struct {
	images    map[digest.Digest]*Image
	referrers map[digest.Digest][]digest.Digest // by subject
	unread    unread
}

// unread says what an index lists that has not been read.
type unread bool

const (
	listsAnything unread = true  // any untagged image that is no index
	listsNothing  unread = false // which may expire more than ECR does
)

func relate(images map[digest.Digest]*Image, unread unread) relations {
	r := relations{images: images, referrers: make(map[digest.Digest][]digest.Digest), unread: unread}
	for _, img := range images {
		if img.Subject != "" {
			r.referrers[img.Subject] = append(r.referrers[img.Subject], img.Digest)
		}
	}
	return r
}

// dependents returns the images that cannot be removed before img is.
func (r relations) dependents(img *Image) []digest.Digest {
	return slices.Concat(img.Children, r.referrers[img.Digest])
}

// settle changes the images that the rules expire into the images that can be
// removed.
func (r relations) settle(expired map[digest.Digest]Expired) {
	r.addReferrers(expired)
	r.keepDependents(expired)
	r.delayDependents(expired)
}

// addReferrers expires the referrers of expired images, and their referrers.
func (r relations) addReferrers(expired map[digest.Digest]Expired) {
	queue := slices.Collect(maps.Values(expired))
	for len(queue) > 0 {
		subject := queue[0]
		queue = queue[1:]
		for _, dgst := range r.referrers[subject.Digest] {
			if _, done := expired[dgst]; !done {
				e := Expired{dgst, subject.Rule, subject.Since}
				expired[dgst] = e
				queue = append(queue, e)
			}
		}
	}
}

// keepDependents keeps the dependents of images that stay. If an index that has
// not been read stays, all untagged images except indexes count as its children:
// build tools push the children of an index without a tag. An untagged index is the
// last build of a tag that has moved, and hardly ever the child of another index.
func (r relations) keepDependents(expired map[digest.Digest]Expired) {
	var staying []*Image
	for dgst, img := range r.images {
		if _, ok := expired[dgst]; !ok {
			staying = append(staying, img)
		}
	}
	keep := func(dgst digest.Digest) {
		if _, ok := expired[dgst]; ok {
			delete(expired, dgst)
			staying = append(staying, r.images[dgst])
		}
	}
	keptUntagged := false
	for len(staying) > 0 {
		img := staying[len(staying)-1]
		staying = staying[:len(staying)-1]
		for _, dgst := range r.dependents(img) {
			keep(dgst)
		}
		if r.unread == listsAnything && img.unread() && !keptUntagged {
			keptUntagged = true
			for dgst := range expired {
				if other := r.images[dgst]; len(other.Tags) == 0 && !other.Index {
					keep(dgst)
				}
			}
		}
	}
}

// delayDependents lets no image expire before an image that it depends on: ECR
// removes an index first. It starts from the latest expiry, so that no image is
// delayed twice.
func (r relations) delayDependents(expired map[digest.Digest]Expired) {
	order := slices.SortedFunc(maps.Values(expired), func(a, b Expired) int {
		return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.Digest, b.Digest))
	})
	for _, latest := range order {
		queue := []digest.Digest{latest.Digest}
		for len(queue) > 0 {
			img := r.images[queue[0]]
			queue = queue[1:]
			for _, dgst := range r.dependents(img) {
				if e, ok := expired[dgst]; ok && e.Since.Before(latest.Since) {
					e.Since = latest.Since
					expired[dgst] = e
					queue = append(queue, dgst)
				}
			}
		}
	}
}
