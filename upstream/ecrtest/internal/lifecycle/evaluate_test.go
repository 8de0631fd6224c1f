package lifecycle_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const day = 24 * time.Hour

// now is the time of the evaluations.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// image is an image in a test. Its name stands for the digest.
type image struct {
	name     string
	age      time.Duration // since its push
	tags     []string
	subject  string
	children []string

	unused    time.Duration // since its last pull; never pulled if 0
	inArchive time.Duration // since it was archived; not archived if 0
}

// pushed returns an image.
func pushed(name string, age time.Duration, tags ...string) image {
	return image{name: name, age: age, tags: tags}
}

// evaluate returns the names of the images that a policy expires and archives.
func evaluate(t *testing.T, policy string, images ...image) (expired, archived string) {
	t.Helper()
	names := make(map[digest.Digest]string)
	var all []lifecycle.Image
	for _, img := range images {
		entry := lifecycle.Image{
			Digest: digest.FromString(img.name), Tags: img.tags, Pushed: now.Add(-img.age), InArchive: img.inArchive > 0,
		}
		if img.subject != "" {
			entry.Subject = digest.FromString(img.subject)
		}
		for _, child := range img.children {
			entry.Children = append(entry.Children, digest.FromString(child))
		}
		if img.unused > 0 {
			entry.Pulled = now.Add(-img.unused)
		}
		if img.inArchive > 0 {
			entry.Archived = now.Add(-img.inArchive)
		}
		names[entry.Digest] = img.name
		all = append(all, entry)
	}
	result, err := lifecycle.Evaluate(policy, all, now)
	if err != nil {
		t.Fatal(err)
	}
	join := func(digests []digest.Digest) string {
		var found []string
		for _, dgst := range digests {
			found = append(found, names[dgst])
		}
		slices.Sort(found)
		return strings.Join(found, " ")
	}
	return join(result.Expired), join(result.Archived)
}

// rules returns a policy of these selections and actions, by priority.
func rules(selections ...string) string {
	var all []string
	for i, s := range selections {
		all = append(all, fmt.Sprintf(`{"rulePriority":%d,%s}`, i+1, s))
	}
	slices.Reverse(all) // the order has no meaning
	return `{"rules":[` + strings.Join(all, ",") + `]}`
}

func expire(selection string) string {
	return `"selection":{` + selection + `},"action":{"type":"expire"}`
}

func patterns(list string) string { return `"tagStatus":"tagged","tagPatternList":[` + list + `],` }

func moreThan(n int) string {
	return fmt.Sprintf(`"countType":"imageCountMoreThan","countNumber":%d`, n)
}

func since(event string, days int) string {
	return fmt.Sprintf(`"countType":"sinceImage%s","countUnit":"days","countNumber":%d`, event, days)
}

// The examples of the user guide, "Examples of lifecycle policies in Amazon ECR".
func TestUserGuideExamples(t *testing.T) {
	three := []image{
		pushed("A", 10*day, "beta-1", "prod-1"), pushed("B", 9*day, "beta-2", "prod-2"), pushed("C", 8*day, "beta-3"),
	}
	for name, test := range map[string]struct {
		policy string
		images []image
		want   string
	}{
		"prod before beta": {
			rules(expire(patterns(`"prod*"`)+moreThan(1)), expire(patterns(`"beta*"`)+moreThan(1))), three, "A"},
		"beta before prod": {
			rules(expire(patterns(`"beta*"`)+moreThan(1)), expire(patterns(`"prod*"`)+moreThan(1))), three, "A B"},
		"both patterns, by age": {rules(expire(patterns(`"alpha*","beta*"`) + since("Pushed", 5))), []image{
			pushed("A", 12*day, "alpha-1"), pushed("B", 11*day, "beta-1"), pushed("C", 10*day, "alpha-2", "beta-2"),
			pushed("D", 4*day, "alpha-3"), pushed("E", 3*day, "beta-3"), pushed("F", 2*day, "alpha-4", "beta-4"),
		}, "C"},
		"both patterns, by count": {rules(expire(patterns(`"alpha*","beta*"`) + moreThan(1))), []image{
			pushed("A", 10*day, "alpha-1", "beta-1", "gamma-1"), pushed("B", 9*day, "alpha-2", "beta-2"),
			pushed("C", 8*day, "alpha-3", "beta-3", "gamma-2"),
		}, "A B"},
		"any": {rules(expire(`"tagStatus":"any",` + moreThan(1))), []image{
			pushed("A", 4*day, "alpha-1"), pushed("B", 3*day, "beta-1"), pushed("C", 2*day), pushed("D", day, "alpha-2"),
		}, "A B C"},
		"three rules": {
			rules(expire(`"tagStatus":"tagged","tagPrefixList":["alpha"],`+moreThan(1)),
				expire(`"tagStatus":"untagged",`+since("Pushed", 1)), expire(`"tagStatus":"any",`+moreThan(1))),
			[]image{
				pushed("A", 4*day, "alpha-1", "beta-1"), pushed("B", 3*day), pushed("C", 2*day, "alpha-2"),
				pushed("D", day, "git-hash"), pushed("E", day-time.Second),
			}, "A B D"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, archived := evaluate(t, test.policy, test.images...); got != test.want || archived != "" {
				t.Errorf("expired %q and archived %q, want %q expired", got, archived, test.want)
			}
		})
	}
}

func TestPolicyArchivesAndExpiresFromTheArchive(t *testing.T) {
	archive := `"selection":{"tagStatus":"any","storageClass":"standard",` + since("Pulled", 30) +
		`},"action":{"type":"transition","targetStorageClass":"archive"}`
	remove := expire(`"tagStatus":"any","storageClass":"archive",` + since("Transitioned", 90))
	expired, archived := evaluate(t, rules(archive, remove),
		image{name: "used", age: 100 * day, unused: day},
		image{name: "unused", age: 100 * day, unused: 31 * day},
		image{name: "never-pulled", age: 31 * day},
		image{name: "new", age: 30 * day},
		image{name: "in-archive", age: 400 * day, inArchive: 89 * day},
		image{name: "long-in-archive", age: 400 * day, inArchive: 91 * day},
	)
	if expired != "long-in-archive" || archived != "never-pulled unused" {
		t.Errorf("expired %q, archived %q", expired, archived)
	}
}

func TestReferrersFollowTheirSubjectAndIndexesKeepTheirManifests(t *testing.T) {
	untagged := expire(`"tagStatus":"untagged",` + since("Pushed", 1))
	images := []image{
		{name: "index", age: 2 * day, tags: []string{"old"}, children: []string{"amd64", "arm64"}},
		{name: "amd64", age: 2 * day},
		{name: "arm64", age: 2 * day},
		{name: "signature", age: 2 * day, subject: "index"},
		{name: "signature of signature", age: 2 * day, subject: "signature"},
	}
	if expired, _ := evaluate(t, rules(untagged), images...); expired != "" {
		t.Errorf("the tagged index stays, but %q expired", expired)
	}
	want := "amd64 arm64 index signature signature of signature"
	if expired, _ := evaluate(t, rules(expire(patterns(`"old"`)+since("Pushed", 1)), untagged), images...); expired != want {
		t.Errorf("expired %q, want %q", expired, want)
	}
}

func TestInvalidPolicyIsRefused(t *testing.T) {
	images := []lifecycle.Image{{Digest: digest.FromString("A"), Pushed: now}}
	for _, policy := range []string{
		`nonsense`,
		`{"rule":[]}`,
		rules(expire(`"tagStatus":"any","countType":"other","countNumber":1`)),
		rules(`"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"keep"}`),
	} {
		if result, err := lifecycle.Evaluate(policy, images, now); err == nil {
			t.Errorf("%s: %v, want an error", policy, result)
		}
	}
}
