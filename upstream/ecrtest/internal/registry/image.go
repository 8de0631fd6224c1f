package registry

import "time"

// ImageState is ECR's record of an image, besides its manifest. A zero time was never
// recorded.
type ImageState struct {
	Pushed    time.Time // when AddManifest added it, unless SetImageState says otherwise
	Pulled    time.Time // last; a pull sets it if it is a day old
	Archived  time.Time // last
	Activated time.Time // last, out of the archive
	Status    string    // "ACTIVE" if empty; an "ARCHIVED" image cannot be pulled
}

// Statuses of images.
const (
	ActiveStatus   = "ACTIVE"
	ArchivedStatus = "ARCHIVED"
)

// archived reports whether the image cannot be pulled.
func (s ImageState) archived() bool { return s.Status == ArchivedStatus }

// Image is an image in a repository.
type Image struct {
	Manifest
	ImageState
	Tags []string // sorted
}
