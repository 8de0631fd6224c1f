package ecrtest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// pushed is an image of a repository in a test of lifecycle policies.
type pushed struct {
	name  string
	tags  []string
	age   time.Duration // since its push
	state ecrtest.ImageState
}

const day = 24 * time.Hour

func tagged(name string, age time.Duration, tags ...string) pushed {
	return pushed{name: name, age: age, tags: tags}
}

// rules returns a policy of these selections and actions, by priority.
func rules(selections ...string) string {
	var all []string
	for i, s := range selections {
		all = append(all, fmt.Sprintf(`{"rulePriority":%d,%s}`, i+1, s))
	}
	slices.Reverse(all) // the order means nothing
	return `{"rules":[` + strings.Join(all, ",") + `]}`
}

func expire(selection string) string {
	return `"selection":{` + selection + `},"action":{"type":"expire"}`
}

func patterns(list string) string { return `"tagStatus":"tagged","tagPatternList":[` + list + `],` }

func moreThan(n int) string {
	return fmt.Sprintf(`"countType":"imageCountMoreThan","countNumber":%d`, n)
}

func since(what string, days int) string {
	return fmt.Sprintf(`"countType":"sinceImage%s","countUnit":"days","countNumber":%d`, what, days)
}

// runLifecycle puts images into a repository, runs a policy, and returns the
// names of what it expired and archived.
func runLifecycle(t *testing.T, policy string, images []pushed) (expired, archived string) {
	t.Helper()
	clock := ecrtest.NewClock()
	server := ecrtest.New(ecrtest.Options{Now: clock.Now})
	names := make(map[digest.Digest]string)
	for _, img := range images {
		var root digest.Digest
		for _, tag := range append([]string{""}, img.tags...) {
			desc, err := server.AddManifest("app", tag, ocispec.MediaTypeImageManifest, []byte(`{"name":"`+img.name+`"}`))
			if err != nil {
				t.Fatal(err)
			}
			root = desc.Digest
		}
		img.state.Pushed = clock.Now().Add(-img.age)
		if err := server.SetImageState("app", root, img.state); err != nil {
			t.Fatal(err)
		}
		names[root] = img.name
	}
	if err := server.SetLifecyclePolicy("app", policy); err != nil {
		t.Fatal(err)
	}
	done, err := server.RunLifecycle("app")
	if err != nil {
		t.Fatal(err)
	}
	called := func(digests []digest.Digest) string {
		var all []string
		for _, dgst := range digests {
			all = append(all, names[dgst])
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	return called(done.Expired), called(done.Archived)
}

// The examples of the user guide, "Examples of lifecycle policies in Amazon ECR".
func TestLifecyclePoliciesOfTheUserGuide(t *testing.T) {
	three := []pushed{
		tagged("A", 10*day, "beta-1", "prod-1"), tagged("B", 9*day, "beta-2", "prod-2"), tagged("C", 8*day, "beta-3"),
	}
	for name, test := range map[string]struct {
		policy string
		images []pushed
		want   string
	}{
		"prod before beta": {
			rules(expire(patterns(`"prod*"`)+moreThan(1)), expire(patterns(`"beta*"`)+moreThan(1))), three, "A"},
		"beta before prod": {
			rules(expire(patterns(`"beta*"`)+moreThan(1)), expire(patterns(`"prod*"`)+moreThan(1))), three, "A B"},
		"both patterns, by age": {rules(expire(patterns(`"alpha*","beta*"`) + since("Pushed", 5))), []pushed{
			tagged("A", 12*day, "alpha-1"), tagged("B", 11*day, "beta-1"), tagged("C", 10*day, "alpha-2", "beta-2"),
			tagged("D", 4*day, "alpha-3"), tagged("E", 3*day, "beta-3"), tagged("F", 2*day, "alpha-4", "beta-4"),
		}, "C"},
		"both patterns, by count": {rules(expire(patterns(`"alpha*","beta*"`) + moreThan(1))), []pushed{
			tagged("A", 10*day, "alpha-1", "beta-1", "gamma-1"), tagged("B", 9*day, "alpha-2", "beta-2"),
			tagged("C", 8*day, "alpha-3", "beta-3", "gamma-2"),
		}, "A B"},
		"any": {rules(expire(`"tagStatus":"any",` + moreThan(1))), []pushed{
			tagged("A", 4*day, "alpha-1"), tagged("B", 3*day, "beta-1"), tagged("C", 2*day), tagged("D", day, "alpha-2"),
		}, "A B C"},
		"three rules": {
			rules(expire(`"tagStatus":"tagged","tagPrefixList":["alpha"],`+moreThan(1)),
				expire(`"tagStatus":"untagged",`+since("Pushed", 1)), expire(`"tagStatus":"any",`+moreThan(1))),
			[]pushed{
				tagged("A", 4*day, "alpha-1", "beta-1"), tagged("B", 3*day), tagged("C", 2*day, "alpha-2"),
				tagged("D", day, "git-hash"), tagged("E", day-time.Second),
			}, "A B D"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, archived := runLifecycle(t, test.policy, test.images); got != test.want || archived != "" {
				t.Errorf("expired %q and archived %q, want %q expired", got, archived, test.want)
			}
		})
	}
}

func TestLifecyclePolicyArchivesAndExpiresFromTheArchive(t *testing.T) {
	clock := ecrtest.NewClock()
	archive := `"selection":{"tagStatus":"any","storageClass":"standard",` + since("Pulled", 30) +
		`},"action":{"type":"transition","targetStorageClass":"archive"}`
	forget := expire(`"tagStatus":"any","storageClass":"archive",` + since("Transitioned", 90))
	ago := func(d time.Duration) time.Time { return clock.Now().Add(-d) }
	expired, archived := runLifecycle(t, rules(archive, forget), []pushed{
		{name: "used", age: 100 * day, state: ecrtest.ImageState{Pulled: ago(day)}},
		{name: "unused", age: 100 * day, state: ecrtest.ImageState{Pulled: ago(31 * day)}},
		{name: "never-pulled", age: 31 * day},
		{name: "new", age: 30 * day},
		{name: "in-archive", age: 400 * day, state: ecrtest.ImageState{Status: "ARCHIVED", Archived: ago(89 * day)}},
		{name: "forgotten", age: 400 * day, state: ecrtest.ImageState{Status: "ARCHIVED", Archived: ago(91 * day)}},
	})
	if expired != "forgotten" || archived != "never-pulled unused" {
		t.Errorf("expired %q, archived %q", expired, archived)
	}
}

func TestLifecyclePolicyKeepsWhatBelongsTogether(t *testing.T) {
	clock := ecrtest.NewClock()
	server, c := start(t, ecrtest.Options{Now: clock.Now, TokenTTL: 1000 * time.Hour})
	old, err := server.AddImage("team/app", "old", image())
	if err != nil {
		t.Fatal(err)
	}
	kept, err := server.AddImage("team/app", "kept", ecrtest.Image{
		Layers: []ecrtest.Layer{{Content: ecrtest.Random(9, 10)}}, Platforms: []string{"linux/amd64", "linux/arm64"}, Artifact: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	clock.Advance(2 * day)
	if err := server.SetLifecyclePolicy("team/app", rules(expire(`"tagStatus":"untagged",`+since("Pushed", 1)))); err != nil {
		t.Fatal(err)
	}
	done, err := server.RunLifecycle("team/app")
	if err != nil || len(done.Expired) != 0 {
		t.Errorf("manifests that indexes hold, and referrers, were expired: %v, %v", done.Expired, err)
	}
	wantImage(t, c, "team/app", "old", old)

	if err := server.SetLifecyclePolicy("team/app",
		rules(expire(patterns(`"old"`)+since("Pushed", 1)), expire(`"tagStatus":"untagged",`+since("Pushed", 1)))); err != nil {
		t.Fatal(err)
	}
	done, err = server.RunLifecycle("team/app")
	if err != nil {
		t.Fatal(err)
	}
	want := []digest.Digest{old.Root.Digest, old.Artifact.Digest, old.Manifests[0].Digest, old.Manifests[1].Digest}
	slices.Sort(want)
	if diff := cmp.Diff(want, done.Expired); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
	wantImage(t, c, "team/app", "kept", kept)
	wantStatus(t, c.registry("GET", "/v2/team/app/manifests/old"), 404)
	wantStatus(t, c.registry("GET", "/v2/team/app/manifests/"+old.Root.Digest.String()), 404)
}

func TestLifecyclePolicyThatMeansNothingIsRefused(t *testing.T) {
	server := ecrtest.New(ecrtest.Options{})
	if _, err := server.RunLifecycle("app"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no repository: %v", err)
	}
	if _, err := server.AddManifest("app", "v1", ocispec.MediaTypeImageManifest, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if done, err := server.RunLifecycle("app"); err != nil || len(done.Expired)+len(done.Archived) > 0 {
		t.Errorf("no policy: %v, %v", done, err)
	}
	for _, policy := range []string{
		`nonsense`,
		`{"rule":[]}`,
		rules(expire(`"tagStatus":"any","countType":"other","countNumber":1`)),
		rules(`"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"keep"}`),
	} {
		if err := server.SetLifecyclePolicy("app", policy); err != nil {
			t.Fatal(err)
		}
		if _, err := server.RunLifecycle("app"); err == nil || !strings.HasPrefix(err.Error(), "running the lifecycle policy of app: ") {
			t.Errorf("%s: %v", policy, err)
		}
	}
}
