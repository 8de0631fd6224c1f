package upkeep_test

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// moreThanTwo is a policy that expires all images but the latest two.
const moreThanTwo = `{"rules": [{"rulePriority": 10, "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 2}, "action": {"type": "expire"}}]}`

func (r *rig) setPolicy(t *testing.T, text string) {
	t.Helper()
	if err := r.ecr.SetLifecyclePolicy("team/app", text); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) apply(t *testing.T) {
	t.Helper()
	if err := r.lifecycle.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// expired returns the tags of the expired images, each with the rule.
func (r *rig) expired(t *testing.T) map[string]string {
	t.Helper()
	images, err := r.store.Images()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, img := range images {
		if img.Expired != nil {
			all[cmp.Or(img.Tag, img.Digest.String())] = fmt.Sprint(img.Expired.Source, " ", img.Expired.Rule)
		}
	}
	return all
}

func TestExpiredImagesAreEvictedFirst(t *testing.T) {
	for _, c := range []struct {
		name, keys string
		keepsOld   bool
	}{
		{"hint", "", false},
		{"off", ", lifecycle: \"off\"", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.keys, "")
			old, young := r.add(t, "old", 48*time.Hour), r.add(t, "young", 2*time.Hour)
			r.setPolicy(t, moreThanTwo)
			third := r.add(t, "third", time.Hour)
			r.pull(t, "young", young)
			r.pull(t, "old", old) // the expired image was used last
			r.apply(t)
			r.pull(t, "third", third)
			if r.holds(old) != c.keepsOld || r.holds(young) == c.keepsOld {
				t.Errorf("held: the expired image %t, the other %t", r.holds(old), r.holds(young))
			}
		})
	}
}

func TestDeniedLifecyclePolicyIsLoggedOnce(t *testing.T) {
	r := newRig(t, "", "")
	img := r.add(t, "v1", time.Hour)
	r.pull(t, "v1", img)
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.API, Status: http.StatusBadRequest,
		Body: `{"__type":"AccessDeniedException","message":"no"}`})
	for range 2 {
		r.apply(t)
	}
	if n := strings.Count(r.log.String(), "ecr:GetLifecyclePolicy"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, &r.log)
	}
}

// threeImagesOneExpired has a policy that expires the oldest of three images,
// of which the cache holds the older two.
func threeImagesOneExpired(t *testing.T, ecrKeys string) (r *rig, old, young *ecrtest.Added) {
	r = newRig(t, ecrKeys, "")
	old, young = r.add(t, "old", 48*time.Hour), r.add(t, "young", 2*time.Hour)
	r.add(t, "third", time.Hour)
	r.setPolicy(t, moreThanTwo)
	r.pull(t, "old", old)
	r.pull(t, "young", young)
	r.apply(t)
	if diff := gocmp.Diff(map[string]string{"old": "ecr 10"}, r.expired(t)); diff != "" {
		t.Fatalf("expired (-want +got):\n%s", diff)
	}
	return r, old, young
}

func TestEnforcedLifecycleRemovesExpiredImagesThatAreGoneUpstream(t *testing.T) {
	gone := func(t *testing.T, r *rig, old *ecrtest.Added) {
		if err := r.ecr.RemoveManifest("team/app", old.Root.Digest); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		keys    string
		happens func(*testing.T, *rig, *ecrtest.Added)
		removed bool
		asked   int // about manifests
	}{
		"enforce":     {", lifecycle: enforce", gone, true, 1},
		"hint":        {"", gone, false, 0},
		"still there": {", lifecycle: enforce", func(*testing.T, *rig, *ecrtest.Added) {}, false, 0},
		"pinned": {", lifecycle: enforce", func(t *testing.T, r *rig, old *ecrtest.Added) {
			if err := r.store.Pin(cache.Repository{Upstream: r.ecr.Host(), Name: "team/app"}, "old"); err != nil {
				t.Fatal(err)
			}
			gone(t, r, old)
		}, false, 0},
		"answered otherwise": {", lifecycle: enforce", func(t *testing.T, r *rig, old *ecrtest.Added) {
			gone(t, r, old)
			r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusNotImplemented})
		}, false, 2}, // by HEAD, and since that did not tell, by GET
		"not in the listing, and still there": {", lifecycle: enforce", func(t *testing.T, r *rig, old *ecrtest.Added) {
			gone(t, r, old)
			r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusOK, Header: http.Header{
				"Docker-Content-Digest": {old.Root.Digest.String()}}})
		}, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r, old, young := threeImagesOneExpired(t, c.keys)
			c.happens(t, r, old)
			before := r.ecr.Stats().Requests[ecrtest.Manifest]
			r.apply(t)
			if r.holds(old) == c.removed || !r.holds(young) {
				t.Errorf("held: the expired image %t, the other %t", r.holds(old), r.holds(young))
			}
			if asked := r.ecr.Stats().Requests[ecrtest.Manifest] - before; asked != c.asked {
				t.Errorf("%d questions about manifests, want %d", asked, c.asked)
			}
			if _, expired := r.expired(t)["old"]; expired == c.removed {
				t.Errorf("the verdict is kept: %t", expired)
			}
		})
	}
}

func TestUpstreamThatDoesNotAnswerIsAskedAboutOneExpiredImageInARound(t *testing.T) {
	r := newRig(t, ", lifecycle: enforce", "")
	expired := []*ecrtest.Added{r.add(t, "first", 72*time.Hour), r.add(t, "second", 48*time.Hour)}
	r.add(t, "young", 2*time.Hour)
	r.add(t, "third", time.Hour)
	r.setPolicy(t, moreThanTwo)
	r.pull(t, "first", expired[0])
	r.pull(t, "second", expired[1])
	r.apply(t)
	if n := len(r.expired(t)); n != 2 {
		t.Fatalf("%d images expired, want 2", n)
	}
	asked := make([]atomic.Bool, len(expired))
	for i, img := range expired {
		if err := r.ecr.RemoveManifest("team/app", img.Root.Digest); err != nil {
			t.Fatal(err)
		}
		r.ecr.Inject(ecrtest.Fault{On: ecrtest.Manifest, Digest: img.Root.Digest, Refuse: true, Notify: func() { asked[i].Store(true) }})
	}
	r.apply(t)
	if asked[0].Load() == asked[1].Load() {
		t.Errorf("asked about the first image: %t, and about the second: %t; want one of them", asked[0].Load(), asked[1].Load())
	}
}

func TestExpiredImagesStayExpiredWhileThePolicyCannotBeRead(t *testing.T) {
	r, _, _ := threeImagesOneExpired(t, "")
	remove := r.ecr.Inject(ecrtest.Fault{On: ecrtest.API, Status: http.StatusInternalServerError})
	r.apply(t)
	remove()
	if _, kept := r.expired(t)["old"]; !kept {
		t.Error("it is dropped when ECR fails")
	}
	r.setPolicy(t, "")
	r.apply(t)
	if _, kept := r.expired(t)["old"]; kept {
		t.Error("it is kept without a policy")
	}
}

func TestImagesPulledByDigestExpireToo(t *testing.T) {
	r := newRig(t, "", "")
	old := r.add(t, "old", 48*time.Hour)
	r.add(t, "young", 2*time.Hour)
	r.add(t, "third", time.Hour)
	r.setPolicy(t, moreThanTwo)
	r.get(t, "manifests/"+old.Root.Digest.String())
	r.apply(t)
	if diff := gocmp.Diff(map[string]string{old.Root.Digest.String(): "ecr 10"}, r.expired(t)); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
}

const oneOfTeam = `
lifecycle:
  - match: "*/team/*"
    rules:
      - rulePriority: 5
        selection: {tagStatus: any, countType: imageCountMoreThan, countNumber: 1}
        action: {type: expire}
`

func TestLocalRulesUseTheCachesOwnTimes(t *testing.T) {
	r := newRig(t, ", lifecycle: \"off\"", oneOfTeam)
	first, second := r.add(t, "first", time.Hour), r.add(t, "second", 48*time.Hour) // pushed in the other order
	r.pull(t, "first", first)
	r.pull(t, "second", second)
	r.pull(t, "first", first)
	r.apply(t)
	if diff := gocmp.Diff(map[string]string{"first": "local 5"}, r.expired(t)); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
	if n := r.ecr.Stats().Requests[ecrtest.API]; n != 1 {
		t.Errorf("%d calls of the API, want the one for a token", n)
	}
	r.pull(t, "third", r.add(t, "third", 3*time.Hour))
	if r.holds(first) || !r.holds(second) {
		t.Errorf("held: the expired image %t, the other %t", r.holds(first), r.holds(second))
	}
}

func TestImageExpiresByLocalRulesOrByECRs(t *testing.T) {
	r := newRig(t, "", oneOfTeam)
	old, young := r.add(t, "old", 48*time.Hour), r.add(t, "young", 2*time.Hour)
	r.add(t, "third", time.Hour)
	r.setPolicy(t, moreThanTwo)
	r.pull(t, "young", young)
	r.pull(t, "old", old)
	r.apply(t)
	if diff := gocmp.Diff(map[string]string{"old": "ecr 10", "young": "local 5"}, r.expired(t)); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
}

func TestEarlierOfTwoExpiryTimesCounts(t *testing.T) {
	verdict := func(name string, since int64, source string) cache.Verdict {
		return cache.Verdict{Digest: digest.FromString(name), Expiry: cache.Expiry{Since: time.Unix(since, 0), Source: source}}
	}
	got := upkeep.Earliest(
		[]cache.Verdict{verdict("a", 1, upkeep.SourceECR), verdict("b", 2, upkeep.SourceECR), verdict("c", 3, upkeep.SourceECR)},
		[]cache.Verdict{verdict("b", 1, upkeep.SourceLocal), verdict("c", 4, upkeep.SourceLocal), verdict("d", 5, upkeep.SourceLocal)})
	want := []cache.Verdict{verdict("a", 1, upkeep.SourceECR), verdict("b", 1, upkeep.SourceLocal), verdict("c", 3, upkeep.SourceECR), verdict("d", 5, upkeep.SourceLocal)}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

const untaggedForADay = `{"rules": [{"rulePriority": 1, "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 1}, "action": {"type": "expire"}}]}`

// unpulledToo is untaggedForADay with a rule by pull.
const unpulledToo = `{"rules": [{"rulePriority": 1, "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 1}, "action": {"type": "expire"}},
	{"rulePriority": 2, "selection": {"tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 90}, "action": {"type": "transition", "targetStorageClass": "archive"}}]}`

// addOld gives the upstream an image that is two days old, for each of the platforms.
func (r *rig) addOld(t *testing.T, tag string, platforms ...string) *ecrtest.Added {
	t.Helper()
	layer := ecrtest.Layer{Content: ecrtest.TarLayer("data", uint64(len(platforms)), 1000)}
	added, err := r.ecr.AddImage("team/app", tag, ecrtest.Image{Layers: []ecrtest.Layer{layer}, Platforms: platforms, Cmd: []string{tag}})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(added.Manifests, added.Root) {
		if err := r.ecr.SetImageState("team/app", d.Digest, ecrtest.ImageState{Pushed: time.Now().Add(-48 * time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	return added
}

func TestUnknownIndexesAreReadOnceWhereThatDecides(t *testing.T) {
	for name, c := range map[string]struct {
		policy  string
		pulled  bool // whether the old image's manifest is in the cache
		fault   ecrtest.Fault
		expired bool
		read    int // requests for manifests, in two rounds
	}{
		"decides":                     {untaggedForADay, true, ecrtest.Fault{}, true, 1},
		"nothing untagged here":       {untaggedForADay, false, ecrtest.Fault{}, false, 0},
		"reading may count as a pull": {unpulledToo, true, ecrtest.Fault{}, false, 0},
		"the upstream has it no more": {untaggedForADay, true, ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusNotFound}, false, 1},
		"lies":                        {untaggedForADay, true, ecrtest.Fault{On: ecrtest.Manifest, Status: http.StatusOK, Body: `{"manifests":[]}`}, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "", "")
			old := r.addOld(t, "", "linux/s390x")
			r.addOld(t, "multi", "linux/amd64", "linux/arm64")
			r.setPolicy(t, c.policy)
			if c.pulled {
				r.get(t, "manifests/"+old.Root.Digest.String())
			} else {
				r.get(t, "manifests/multi")
			}
			if c.fault.Status != 0 {
				r.ecr.Inject(c.fault)
			}
			before := r.ecr.Stats().Requests[ecrtest.Manifest]
			for range 2 {
				r.apply(t)
			}
			if got := len(r.expired(t)) == 1; got != c.expired {
				t.Errorf("expired: %v", r.expired(t))
			}
			if n := r.ecr.Stats().Requests[ecrtest.Manifest] - before; n != c.read {
				t.Errorf("%d manifests were read, want %d", n, c.read)
			}
		})
	}
}

func TestRuleThatIsNotUnderstoodIsSaidOnce(t *testing.T) {
	r := newRig(t, "", "")
	r.pull(t, "old", r.add(t, "old", 48*time.Hour))
	r.add(t, "young", 2*time.Hour)
	r.add(t, "third", time.Hour)
	count := func(want int) {
		t.Helper()
		if n := strings.Count(r.log.String(), "rules[0].selection.countType"); n != want {
			t.Errorf("said %d times, want %d:\n%s", n, want, &r.log)
		}
	}
	unclear := strings.Replace(moreThanTwo, `"rules": [`, `"rules": [{"rulePriority": 1, "selection": {"tagStatus": "untagged", "countType": "imageSizeMoreThan", "countNumber": 1}, "action": {"type": "expire"}}, `, 1)
	for range 2 {
		r.setPolicy(t, unclear)
		for range 2 {
			r.apply(t)
		}
		count(1)
		if diff := gocmp.Diff(map[string]string{"old": "ecr 10"}, r.expired(t)); diff != "" {
			t.Errorf("by the other rule expired (-want +got):\n%s", diff)
		}
	}
	r.setPolicy(t, moreThanTwo)
	r.apply(t)
	r.setPolicy(t, unclear)
	r.apply(t)
	count(2)
}

func TestThrottledRoundEndsAndSaysSoOnce(t *testing.T) {
	r := newRig(t, "", "")
	for _, name := range []string{"team/app", "team/one", "team/two"} {
		added, err := r.ecr.AddImage(name, "v1", ecrtest.Image{Layers: []ecrtest.Layer{{Content: ecrtest.Random(1, 100)}}})
		if err != nil {
			t.Fatal(err)
		}
		r.getFrom(t, name, "manifests/"+added.Root.Digest.String())
	}
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.API, Status: http.StatusTooManyRequests})
	before := r.ecr.Stats().Requests[ecrtest.API]
	for range 2 {
		r.apply(t)
	}
	if n := r.ecr.Stats().Requests[ecrtest.API] - before; n > 2 {
		t.Errorf("%d calls in two rounds, want one in each", n)
	}
	if n := strings.Count(r.log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings, want 1:\n%s", n, &r.log)
	}
}
