package upstream

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// LifecyclePolicy says which images of a repository have served their time, in
// the form and by the rules of Amazon ECR (user guide, "Automate the cleanup of
// images by using lifecycle policies"). The zero value expires nothing. It does
// not change, and is safe for concurrent use.
type LifecyclePolicy struct {
	rules []lifecycleRule // in the order in which they apply
}

type lifecycleRule struct {
	priority  int
	selection selection
	count     countType
	number    int  // of images, or of days
	expires   bool // what it acts on, rather than moving it to the archive
}

// countType is what a rule goes by, in the words of ECR.
type countType string

const (
	imageCountMoreThan     countType = "imageCountMoreThan"
	sinceImagePushed       countType = "sinceImagePushed"
	sinceImagePulled       countType = "sinceImagePulled"
	sinceImageTransitioned countType = "sinceImageTransitioned"
)

// Image is what a lifecycle policy goes by. Only Digest and Pushed are always
// needed; a time that is not known is zero.
type Image struct {
	Digest digest.Digest
	Tags   []string

	Pushed    time.Time
	Pulled    time.Time // for the last time
	Archived  time.Time // for the last time
	Activated time.Time // for the last time, out of the archive

	// Status is "ACTIVE", "ARCHIVED" or another one of ECR's. Empty means active.
	Status string

	// Subject is what a referrer, such as a signature, is about.
	Subject digest.Digest

	// Index tells that it lists other manifests, and Children which ones. Nil
	// means that nobody has read it, and that anything untagged may be in it.
	Index    bool
	Children []digest.Digest
}

// Expiry says that an image has expired.
type Expiry struct {
	Digest digest.Digest
	Rule   int       // the priority of the rule
	Since  time.Time // when it expired: what "oldest expiry first" goes by
}

// Expired returns what expires if images are all that the repository holds, the
// oldest expiry first. As at ECR, an image that an index lists stays as long as
// the index does, and a referrer goes with its subject.
//
// Where ECR's documentation leaves a question open, the answer here is the one
// that expires less: an image whose push time is unknown is neither expired nor
// counted; nor is a referrer, by rules of its own, and it stays if its subject
// is missing; an index that is in the archive holds what it lists all the same.
func (p LifecyclePolicy) Expired(images []Image, now time.Time) []Expiry {
	all := make(map[digest.Digest]*Image, len(images))
	var ruled []*Image
	for i := range images {
		img := &images[i]
		if all[img.Digest] != nil {
			continue
		}
		all[img.Digest] = img
		if img.Subject == "" && !img.Pushed.IsZero() {
			ruled = append(ruled, img)
		}
	}
	slices.SortFunc(ruled, func(a, b *Image) int {
		return cmp.Or(b.available().Compare(a.available()), cmp.Compare(a.Digest, b.Digest))
	})
	expired := p.apply(ruled, now)
	relate(all).settle(expired)
	return slices.SortedFunc(maps.Values(expired), func(a, b Expiry) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Digest, b.Digest))
	})
}

// apply returns what the rules by themselves expire of images, which are in
// order, the youngest first. A rule counts all that it selects, and acts on
// that which no rule before it selects.
func (p LifecyclePolicy) apply(images []*Image, now time.Time) map[digest.Digest]Expiry {
	expired := make(map[digest.Digest]Expiry)
	claimed := make([]bool, len(images))
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
				expired[img.Digest] = Expiry{img.Digest, rule.priority, since}
			}
		}
	}
	return expired
}

// maxDays keeps a number of days within a time.Duration.
const maxDays = 100 * 365

// actsSince tells whether the rule acts on the last of the images it selects so
// far, the youngest first, and since when.
func (r *lifecycleRule) actsSince(selected []*Image, now time.Time) (since time.Time, acts bool) {
	last := len(selected) - 1
	if r.count == imageCountMoreThan {
		if last < r.number {
			return time.Time{}, false
		}
		// It was one too many when the last of the ones that are kept came.
		since = selected[last-r.number].available()
		if since.After(now) {
			since = now // the upstream's clock is ahead
		}
		return since, true
	}
	start := r.start(selected[last])
	since = start.Add(time.Duration(min(r.number, maxDays)) * 24 * time.Hour)
	return since, !start.IsZero() && now.After(since)
}

// start is the time from which a rule by age counts. Zero means unknown.
func (r *lifecycleRule) start(img *Image) time.Time {
	switch r.count {
	case sinceImageTransitioned:
		return img.Archived
	case sinceImagePulled:
		if used := later(img.Pulled, img.Activated); !used.IsZero() {
			return used
		}
		return img.Pushed
	default:
		return img.available()
	}
}

// available is the time by which images are ordered: that of the push, or of
// the latest return from the archive.
func (img *Image) available() time.Time {
	if !img.Activated.IsZero() {
		return img.Activated
	}
	return img.Pushed
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
