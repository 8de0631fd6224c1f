// Package lifecycle evaluates ECR's lifecycle policies in the most direct way that
// the user guide allows. It shares nothing with the evaluation in Larder, which the
// tests compare with this one.
package lifecycle

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Image is an image as the rules see it. A zero time was never recorded.
type Image struct {
	Digest   digest.Digest
	Tags     []string
	Subject  digest.Digest   // the image of the repository that this one refers to, or ""
	Children []digest.Digest // the manifests and blobs that the manifest or index names

	Pushed    time.Time
	Pulled    time.Time // last
	Archived  time.Time // last
	InArchive bool
}

// Result lists the images that a policy expires and archives, each sorted by digest.
type Result struct {
	Expired  []digest.Digest
	Archived []digest.Digest
}

// Evaluate applies a policy, as a JSON text, to the images of a repository at a time. All rules are evaluated at once and then applied by priority: of the
// rules whose tagging an image has, only the first decides about it.
func Evaluate(policy string, images []Image, now time.Time) (Result, error) {
	rules, err := parse(policy)
	if err != nil {
		return Result{}, err
	}
	images = slices.Clone(images)
	slices.SortFunc(images, func(a, b Image) int {
		return cmp.Or(b.Pushed.Compare(a.Pushed), cmp.Compare(a.Digest, b.Digest))
	})
	e := evaluation{now: now, images: images}
	expired, archived := make(digests), make(digests)
	decided := make(digests)
	for _, r := range rules {
		selected, marked, err := e.apply(r)
		if err != nil {
			return Result{}, fmt.Errorf("rule %d: %w", r.RulePriority, err)
		}
		for _, img := range selected {
			if decided[img.Digest] {
				continue
			}
			decided[img.Digest] = true
			switch {
			case !marked[img.Digest]:
			case r.Action.Type == "transition":
				archived[img.Digest] = true
			default:
				expired[img.Digest] = true
			}
		}
	}
	e.keepTogether(expired)
	e.keepTogether(archived)
	return Result{Expired: slices.Sorted(maps.Keys(expired)), Archived: slices.Sorted(maps.Keys(archived))}, nil
}

// evaluation is the evaluation of one policy.
type evaluation struct {
	now    time.Time
	images []Image // newest first
}

type digests = map[digest.Digest]bool

// apply returns the images that have the tagging of a rule, and which of them the
// rule marks.
func (e evaluation) apply(r rule) (selected []Image, marked digests, err error) {
	sel := r.Selection
	if r.Action.Type != "expire" && r.Action.Type != "transition" {
		return nil, nil, fmt.Errorf("no action %q", r.Action.Type)
	}
	for _, img := range e.images {
		if img.Subject == "" && r.selects(img) { // a referrer follows its subject
			selected = append(selected, img)
		}
	}
	marked = make(digests)
	age := time.Duration(sel.CountNumber) * 24 * time.Hour
	for i, img := range selected {
		switch sel.CountType {
		case "imageCountMoreThan":
			marked[img.Digest] = i >= sel.CountNumber
		case "sinceImagePushed":
			marked[img.Digest] = e.now.Sub(img.Pushed) > age
		case "sinceImagePulled":
			used := img.Pulled
			if used.IsZero() {
				used = img.Pushed
			}
			marked[img.Digest] = e.now.Sub(used) > age
		case "sinceImageTransitioned":
			marked[img.Digest] = e.now.Sub(img.Archived) > age
		default:
			return nil, nil, fmt.Errorf("no count type %q", sel.CountType)
		}
	}
	return selected, marked, nil
}

// keepTogether adds the referrers of marked images. Then it removes what an
// unmarked image needs: the manifests of an unmarked index, and the referrers of
// unmarked images.
func (e evaluation) keepTogether(marked digests) {
	e.repeat(func(img Image) []digest.Digest {
		if img.Subject != "" && marked[img.Subject] && !marked[img.Digest] {
			return []digest.Digest{img.Digest}
		}
		return nil
	}, func(dgst digest.Digest) { marked[dgst] = true })
	e.repeat(func(img Image) []digest.Digest {
		var needed []digest.Digest
		if img.Subject != "" && !marked[img.Subject] && marked[img.Digest] {
			needed = append(needed, img.Digest)
		}
		if !marked[img.Digest] {
			for _, child := range img.Children {
				if marked[child] {
					needed = append(needed, child)
				}
			}
		}
		return needed
	}, func(dgst digest.Digest) { delete(marked, dgst) })
}

// repeat calls change for what find returns for any image, until find returns
// nothing for all of them.
func (e evaluation) repeat(find func(Image) []digest.Digest, change func(digest.Digest)) {
	for changed := true; changed; {
		changed = false
		for _, img := range e.images {
			for _, dgst := range find(img) {
				change(dgst)
				changed = true
			}
		}
	}
}
