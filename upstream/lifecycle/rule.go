package lifecycle

import "time"

// rule is one rule of a policy.
type rule struct {
	priority  int
	selection selection
	count     countType
	number    int  // of images, or of days
	expires   bool // false for a rule that moves images to the archive
}

// countType says what a rule counts. The values are ECR's.
type countType string

const (
	imageCountMoreThan     countType = "imageCountMoreThan"
	sinceImagePushed       countType = "sinceImagePushed"
	sinceImagePulled       countType = "sinceImagePulled"
	sinceImageTransitioned countType = "sinceImageTransitioned"
)

// maxDays is about a century. It keeps a number of days within a time.Duration.
const maxDays = 100 * 365

// actsSince tells whether the rule acts on the last of the images that it has
// selected so far, youngest first, and since when.
func (r *rule) actsSince(selected []*Image, now time.Time) (since time.Time, acts bool) {
	last := len(selected) - 1
	if r.count == imageCountMoreThan {
		if last < r.number {
			return time.Time{}, false
		}
		// The image became surplus when the youngest r.number images were complete.
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

// start returns the time from which a rule by age counts. Zero means unknown.
func (r *rule) start(img *Image) time.Time {
	switch r.count {
	case sinceImageTransitioned:
		return img.Archived
	case sinceImagePulled:
		return img.used()
	default:
		return img.available()
	}
}
