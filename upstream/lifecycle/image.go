package lifecycle

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Image is what a policy needs to know about an image. Only Digest and Pushed are
// required; the zero time means that a time is unknown.
type Image struct {
	Digest digest.Digest
	Tags   []string

	Pushed    time.Time
	Pulled    time.Time // the last pull
	Archived  time.Time // the last move to the archive
	Activated time.Time // the last return from the archive

	// Status is "ACTIVE", "ARCHIVED" or another status of ECR. Empty means active.
	Status string

	// Subject is the digest that a referrer, such as a signature, refers to.
	Subject digest.Digest

	// Index tells whether the image lists other manifests, and Children which ones.
	// An index with nil Children has not been read: any untagged image that is not
	// itself an index may be one of its children.
	Index    bool
	Children []digest.Digest
}

// The statuses that rules select. An image with any other status, such as one
// that is being archived, is selected by no rule.
const (
	statusActive   = "ACTIVE"
	statusArchived = "ARCHIVED"
)

// unread reports whether the image is an index whose children are unknown.
func (img *Image) unread() bool { return img.Index && img.Children == nil }

// available returns the time by which images are ordered: that of the last return
// from the archive, or else of the push.
func (img *Image) available() time.Time {
	if !img.Activated.IsZero() {
		return img.Activated
	}
	return img.Pushed
}

// used returns the time of the last pull or of the last return from the archive,
// whichever is later, or else of the push.
func (img *Image) used() time.Time {
	last := img.Pulled
	if img.Activated.After(last) {
		last = img.Activated
	}
	if last.IsZero() {
		return img.Pushed
	}
	return last
}
