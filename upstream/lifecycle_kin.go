package upstream

import (
	"cmp"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
)

// kinship is how the images of a repository depend on each other.
type kinship struct {
	images    map[digest.Digest]*Image
	referrers map[digest.Digest][]digest.Digest // by subject
}

func relate(images map[digest.Digest]*Image) kinship {
	k := kinship{images: images, referrers: make(map[digest.Digest][]digest.Digest)}
	for _, img := range images {
		if img.Subject != "" {
			k.referrers[img.Subject] = append(k.referrers[img.Subject], img.Digest)
		}
	}
	return k
}

// dependents are what cannot go before img does.
func (k kinship) dependents(img *Image) []digest.Digest {
	return slices.Concat(img.Children, k.referrers[img.Digest])
}

// settle turns what the rules expire into what can go.
func (k kinship) settle(expired map[digest.Digest]Expiry) {
	k.addReferrers(expired)
	k.keep(expired)
	k.delay(expired)
}

// addReferrers adds what goes with its subject.
func (k kinship) addReferrers(expired map[digest.Digest]Expiry) {
	queue := slices.Collect(maps.Values(expired))
	for len(queue) > 0 {
		subject := queue[0]
		queue = queue[1:]
		for _, dgst := range k.referrers[subject.Digest] {
			if _, done := expired[dgst]; !done {
				e := Expiry{dgst, subject.Rule, subject.Since}
				expired[dgst] = e
				queue = append(queue, e)
			}
		}
	}
}

// keep takes out what depends on something that stays. All untagged images
// count as children of an index that nobody has read: build tools push the
// manifests of an index without a tag.
func (k kinship) keep(expired map[digest.Digest]Expiry) {
	var staying []*Image
	for dgst, img := range k.images {
		if _, ok := expired[dgst]; !ok {
			staying = append(staying, img)
		}
	}
	stay := func(dgst digest.Digest) {
		if _, ok := expired[dgst]; ok {
			delete(expired, dgst)
			staying = append(staying, k.images[dgst])
		}
	}
	unread := false
	for len(staying) > 0 {
		img := staying[len(staying)-1]
		staying = staying[:len(staying)-1]
		for _, dgst := range k.dependents(img) {
			stay(dgst)
		}
		if img.Index && img.Children == nil && !unread {
			unread = true
			for dgst := range expired {
				if len(k.images[dgst].Tags) == 0 {
					stay(dgst)
				}
			}
		}
	}
}

// delay lets nothing expire before what it depends on: ECR takes an index
// first. The latest expiry goes first, so that none is put off twice.
func (k kinship) delay(expired map[digest.Digest]Expiry) {
	order := slices.SortedFunc(maps.Values(expired), func(a, b Expiry) int {
		return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.Digest, b.Digest))
	})
	for _, latest := range order {
		queue := []digest.Digest{latest.Digest}
		for len(queue) > 0 {
			img := k.images[queue[0]]
			queue = queue[1:]
			for _, dgst := range k.dependents(img) {
				if e, ok := expired[dgst]; ok && e.Since.Before(latest.Since) {
					e.Since = latest.Since
					expired[dgst] = e
					queue = append(queue, dgst)
				}
			}
		}
	}
}
