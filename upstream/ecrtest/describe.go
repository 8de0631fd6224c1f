package ecrtest

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// ImageState is what ECR records of an image beside its manifest. A zero time
// is one that it has not recorded.
type ImageState struct {
	Pushed    time.Time // when AddManifest added it, unless SetImageState says otherwise
	Pulled    time.Time // for the last time; pulls set it once it is a day old
	Archived  time.Time // for the last time
	Activated time.Time // for the last time, out of the archive
	Status    string    // "ACTIVE" if empty; what is "ARCHIVED" cannot be pulled
}

// SetImageState replaces what is recorded of an image.
func (s *Server) SetImageState(repo string, dgst digest.Digest, st ImageState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.repos[repo]; r != nil {
		if _, ok := r.manifests[dgst]; ok {
			r.states[dgst] = st
			return nil
		}
	}
	return fmt.Errorf("setting the state of %s@%s: %w", repo, dgst, fs.ErrNotExist)
}

// describeImages sends a page of images, in an order that means nothing.
func (s *Server) describeImages(x *exchange, body []byte) {
	var in struct {
		repositoryID
		Filter struct {
			ImageStatus string `json:"imageStatus"`
		} `json:"filter"`
		MaxResults *int   `json:"maxResults"`
		NextToken  string `json:"nextToken"`
	}
	owner, repo, ok := s.readAPI(x, body, "ecr:DescribeImages", &in, &in.repositoryID)
	if !ok {
		return
	}
	var out struct {
		ImageDetails []imageDetail `json:"imageDetails"`
		NextToken    string        `json:"nextToken,omitempty"`
	}
	images := owner.imageDetails(repo, in.repositoryID, cmp.Or(in.Filter.ImageStatus, "ACTIVE"))
	out.ImageDetails, out.NextToken = page(x, images, in.MaxResults, in.NextToken,
		func(d imageDetail) string { return d.ImageDigest.String() })
	if out.ImageDetails != nil {
		x.replyAPI(http.StatusOK, out)
	}
}

// imageDetail is an image in the answer of DescribeImages.
type imageDetail struct {
	repositoryID
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

// imageDetails returns the images of a status, or of "ANY", by digest.
func (s *Server) imageDetails(repo *repository, id repositoryID, status string) []imageDetail {
	s.mu.RLock()
	defer s.mu.RUnlock()
	tags := make(map[digest.Digest][]string)
	for _, tag := range slices.Sorted(maps.Keys(repo.tags)) {
		tags[repo.tags[tag]] = append(tags[repo.tags[tag]], tag)
	}
	images := []imageDetail{} // an array, even if empty
	for _, dgst := range slices.Sorted(maps.Keys(repo.manifests)) {
		m, st := repo.manifests[dgst], repo.states[dgst]
		st.Status = cmp.Or(st.Status, "ACTIVE")
		if status != "ANY" && status != st.Status {
			continue
		}
		subject, _, _ := m.referrer()
		images = append(images, imageDetail{
			repositoryID:           id,
			ImageDigest:            dgst,
			ImageTags:              tags[dgst],
			ImageManifestMediaType: m.mediaType,
			ImageStatus:            st.Status,
			ImagePushedAt:          recorded(st.Pushed),
			LastRecordedPullTime:   recorded(st.Pulled),
			LastArchivedAt:         recorded(st.Archived),
			LastActivatedAt:        recorded(st.Activated),
			SubjectManifestDigest:  subject,
		})
	}
	return images
}

// recorded is a time in an answer, which leaves out the zero one.
func recorded(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return apiTime(t)
}
