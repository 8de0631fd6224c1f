package lifecycle_test

import (
	"cmp"
	"encoding/json"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/lifecycle"
)

const day = 24 * time.Hour

// policyNow is when the tests evaluate policies.
var policyNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return policyNow.Add(-d) }

// testRule marshals to the JSON of a rule.
type testRule struct {
	Priority  int           `json:"rulePriority"`
	Selection testSelection `json:"selection"`
	Action    testAction    `json:"action"`
}

type testSelection struct {
	TagStatus string   `json:"tagStatus"`
	Patterns  []string `json:"tagPatternList,omitempty"`
	Prefixes  []string `json:"tagPrefixList,omitempty"`
	Class     string   `json:"storageClass,omitempty"`
	CountType string   `json:"countType"`
	CountUnit string   `json:"countUnit,omitempty"`
	Number    int      `json:"countNumber"`
}

type testAction struct {
	Type   string `json:"type"`
	Target string `json:"targetStorageClass,omitempty"`
}

var (
	expire     = testAction{Type: "expire"}
	transition = testAction{Type: "transition", Target: "archive"}
)

// moreThan and olderThan return rules on images with the tags. The tags "any" and
// "untagged" stand for these values of tagStatus.
func moreThan(n int, tags ...string) testRule {
	return testRule{Selection: selectionOf("imageCountMoreThan", "", n, tags), Action: expire}
}

func olderThan(days int, tags ...string) testRule {
	return since("sinceImagePushed", days, tags...)
}

func since(countType string, days int, tags ...string) testRule {
	return testRule{Selection: selectionOf(countType, "days", days, tags), Action: expire}
}

func selectionOf(countType, unit string, n int, tags []string) testSelection {
	s := testSelection{CountType: countType, CountUnit: unit, Number: n}
	if s.CountType == "sinceImageTransitioned" {
		s.Class = "archive"
	}
	switch tags[0] {
	case "any", "untagged":
		s.TagStatus = tags[0]
	default:
		s.TagStatus, s.Patterns = "tagged", tags
	}
	return s
}

func (r testRule) with(a testAction) testRule {
	r.Action = a
	return r
}

// policyOf parses rules. A rule without a priority gets that of its place.
func policyOf(t testing.TB, rules ...testRule) lifecycle.Policy {
	t.Helper()
	for i := range rules {
		rules[i].Priority = cmp.Or(rules[i].Priority, i+1)
	}
	p, err := lifecycle.ParseLocal(marshalRules(rules))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func marshalRules(rules []testRule) []byte {
	text, err := json.Marshal(map[string]any{"rules": rules})
	if err != nil {
		panic(err)
	}
	return text
}

// pushed returns an image. Its digest is just a name.
func pushed(name string, age time.Duration, tags ...string) lifecycle.Image {
	return lifecycle.Image{Digest: digest.Digest(name), Pushed: ago(age), Tags: tags}
}

// change returns a changed copy of img.
func change(img lifecycle.Image, by func(*lifecycle.Image)) lifecycle.Image {
	by(&img)
	return img
}

func archived(img lifecycle.Image, age time.Duration) lifecycle.Image {
	return change(img, func(i *lifecycle.Image) { i.Status, i.Archived = "ARCHIVED", ago(age) })
}

func pulled(img lifecycle.Image, age time.Duration) lifecycle.Image {
	return change(img, func(i *lifecycle.Image) { i.Pulled = ago(age) })
}

func restored(img lifecycle.Image, age time.Duration) lifecycle.Image {
	return change(img, func(i *lifecycle.Image) { i.Status, i.Activated = "ACTIVE", ago(age) })
}

func about(img lifecycle.Image, subject digest.Digest) lifecycle.Image {
	return change(img, func(i *lifecycle.Image) { i.Subject = subject })
}

func index(img lifecycle.Image, children ...digest.Digest) lifecycle.Image {
	return change(img, func(i *lifecycle.Image) { i.Index, i.Children = true, children })
}
