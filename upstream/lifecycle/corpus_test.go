package lifecycle_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/upstream/lifecycle"
)

// corpusCase is a file of testdata/corpus: a policy that people use, and what ECR expires
// by it. The verdicts are written by hand from AWS's documentation.
type corpusCase struct {
	Source       string             `json:"source"`
	Policy       json.RawMessage    `json:"policy"`
	Repositories []corpusRepository `json:"repositories"`
}

// corpusRepository is the images of a repository, and which of them have expired: by their
// names, by the tags of a series, or as "1-70" by the pushes of buildx, for all images of
// each.
type corpusRepository struct {
	What   string        `json:"what"`
	Images []corpusImage `json:"images"`
	Series *struct {     // tagged images, of which the last was pushed EveryDays ago
		Count     int     `json:"count"`
		Tag       string  `json:"tag"`
		EveryDays float64 `json:"everyDays"`
	} `json:"series"`
	Buildx *struct { // a hundred pushes, each of which takes the tag latest
		ReleaseEvery int `json:"releaseEvery"` // which push has a tag of its own; 0 for none
	} `json:"buildx"`
	Expired []string `json:"expired"`
}

// corpusImage was pushed, pulled and archived so many days ago. One that was not archived
// is active.
type corpusImage struct {
	Name     string   `json:"name"`
	Days     float64  `json:"days"`
	Tags     []string `json:"tags"`
	Pulled   float64  `json:"pulled"`
	Archived float64  `json:"archived"`
}

func daysOf(n float64) time.Duration { return time.Duration(n * float64(day)) }

func (r corpusRepository) images() []lifecycle.Image {
	var all []lifecycle.Image
	for _, img := range r.Images {
		made := pushed(img.Name, daysOf(img.Days), img.Tags...)
		if img.Pulled > 0 {
			made = pulled(made, daysOf(img.Pulled))
		}
		if img.Archived > 0 {
			made = archived(made, daysOf(img.Archived))
		}
		all = append(all, made)
	}
	if s := r.Series; s != nil {
		for i := range s.Count {
			tag := fmt.Sprintf(s.Tag, i+1)
			all = append(all, pushed(tag, daysOf(float64(s.Count-i)*s.EveryDays), tag))
		}
	}
	if b := r.Buildx; b != nil {
		tags := latestOnly
		if b.ReleaseEvery == 10 {
			tags = andReleases
		}
		all = append(all, buildx(tags)...)
	}
	return all
}

// want returns the names of the images that have expired.
func (r corpusRepository) want(t *testing.T) []string {
	t.Helper()
	if r.Buildx == nil {
		return slices.Sorted(slices.Values(r.Expired))
	}
	images := r.images()
	var names []string
	for _, pushes := range r.Expired {
		var first, last int
		if _, err := fmt.Sscanf(pushes, "%d-%d", &first, &last); err != nil {
			t.Fatalf("%q: %v", pushes, err)
		}
		for _, img := range images[(first-1)*imagesOfPush : last*imagesOfPush] {
			names = append(names, string(img.Digest))
		}
	}
	return slices.Sorted(slices.Values(names))
}

func TestCorpusOfPoliciesExpiresWhatTheDocumentationSays(t *testing.T) {
	files, err := filepath.Glob("testdata/corpus/*.json")
	if err != nil || len(files) < 15 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		var c corpusCase
		if err := dec.Decode(&c); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		policy, err := lifecycle.Parse(c.Policy)
		if err != nil || len(policy.NotUnderstood()) > 0 {
			t.Fatalf("%s: %v, not understood: %v", file, err, policy.NotUnderstood())
		}
		if len(c.Repositories) == 0 {
			t.Errorf("%s has no verdicts", file)
		}
		for _, repository := range c.Repositories {
			name := strings.TrimSuffix(filepath.Base(file), ".json") + ": " + repository.What
			got := digests(policy.Expired(repository.images(), policyNow))
			slices.Sort(got)
			want := repository.want(t)
			if diff := gocmp.Diff(append([]string{}, want...), append([]string{}, got...)); diff != "" {
				t.Errorf("%s: expired (-want +got):\n%s", name, diff)
			}
		}
	}
}
