package ecrapi

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/registry"
)

// imageDetail is an image in the answer of DescribeImages.
type imageDetail struct {
	repositoryName
	ImageDigest            digest.Digest `json:"imageDigest"`
	ImageTags              []string      `json:"imageTags,omitempty"`
	ImageManifestMediaType string        `json:"imageManifestMediaType"`
	ImageStatus            string        `json:"imageStatus"`
	ImagePushedAt          float64       `json:"imagePushedAt,omitempty"`
	LastRecordedPullTime   float64       `json:"lastRecordedPullTime,omitempty"`
	LastArchivedAt         float64       `json:"lastArchivedAt,omitempty"`
	LastActivatedAt        float64       `json:"lastActivatedAt,omitempty"`
	SubjectManifestDigest  digest.Digest `json:"subjectManifestDigest,omitempty"`
}

// imageDetails returns the images that have a status, or all for "ANY".
func imageDetails(images []registry.Image, id repositoryName, status string) []imageDetail {
	details := []imageDetail{} // an array, even if empty
	for _, img := range images {
		has := cmp.Or(img.Status, registry.ActiveStatus)
		if status != "ANY" && status != has {
			continue
		}
		details = append(details, imageDetail{
			repositoryName:         id,
			ImageDigest:            img.Digest,
			ImageTags:              img.Tags,
			ImageManifestMediaType: img.MediaType,
			ImageStatus:            has,
			ImagePushedAt:          recorded(img.Pushed),
			LastRecordedPullTime:   recorded(img.Pulled),
			LastArchivedAt:         recorded(img.Archived),
			LastActivatedAt:        recorded(img.Activated),
			SubjectManifestDigest:  img.Subject(),
		})
	}
	return details
}

// imageID names an image by its digest, by a tag, or by both.
type imageID struct {
	ImageDigest digest.Digest `json:"imageDigest"`
	ImageTag    string        `json:"imageTag"`
}

// names reports whether it is an image's.
func (id imageID) names(d imageDetail) bool {
	return (id.ImageDigest != "" || id.ImageTag != "") &&
		(id.ImageDigest == "" || id.ImageDigest == d.ImageDigest) && (id.ImageTag == "" || slices.Contains(d.ImageTags, id.ImageTag))
}

// detailsOf returns the images that are named. The error names the first that there is not.
func detailsOf(all []imageDetail, ids []imageID) (details []imageDetail, err error) {
	for _, id := range ids {
		i := slices.IndexFunc(all, id.names)
		if i < 0 {
			return nil, fmt.Errorf("the repository has no image with digest %q and tag %q", id.ImageDigest, id.ImageTag)
		}
		details = append(details, all[i])
	}
	return details, nil
}

// recorded returns a time in an answer, or 0, which is left out, for the zero time.
func recorded(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return timestamp(t)
}
