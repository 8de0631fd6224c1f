package upkeep_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// heads pulls a tag n times, ten minutes apart, and returns how often the upstream was
// asked about it.
func (r *rig) heads(t *testing.T, clock *ecrtest.Clock, tag string, n int) int {
	t.Helper()
	r.ecr.ResetStats()
	for range n {
		clock.Advance(10 * time.Minute)
		r.get(t, "manifests/"+tag)
		r.tags.ReadQueued(t.Context())
	}
	return r.ecr.Stats().Requests[ecrtest.Manifest]
}

func (r *rig) setMutability(t *testing.T, m ecrtest.TagMutability) {
	t.Helper()
	if err := r.ecr.SetTagMutability("team/app", m); err != nil {
		t.Fatal(err)
	}
}

func TestImmutableTagsAreNotRevalidated(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, "", "")
	r.add(t, "1.0", time.Hour)
	r.add(t, "latest", 2*time.Hour)
	r.setMutability(t, ecrtest.TagMutability{Immutable: true, Except: []string{"lat*"}})
	for _, tag := range []string{"1.0", "latest"} {
		r.heads(t, clock, tag, 3) // reads the setting, and confirms the tag
	}
	if n := r.heads(t, clock, "1.0", 12); n != 2 {
		t.Errorf("an immutable tag was asked about %d times in two hours, want once each", n)
	}
	if n := r.heads(t, clock, "latest", 12); n != 12 {
		t.Errorf("a tag that is excluded was asked about %d of 12 times", n)
	}
	if n := r.ecr.AWS().Calls()[ecrtest.Call{Principal: "arn:aws:iam::123456789012:user/larder", Region: "us-east-1", Action: "ecr:DescribeRepositories"}]; n < 5 || n > 10 {
		t.Errorf("the setting was read %d times in five hours, want about once in 40 minutes", n)
	}
}

func TestTagsAreRevalidatedAfterTheirRepositoryBecomesMutable(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, "", "")
	r.add(t, "1.0", time.Hour)
	r.setMutability(t, ecrtest.TagMutability{Immutable: true})
	r.heads(t, clock, "1.0", 3)
	r.setMutability(t, ecrtest.TagMutability{})
	moved := r.add(t, "1.0", 2*time.Hour)
	r.heads(t, clock, "1.0", 6) // an hour
	r.pull(t, "1.0", moved)
	if !r.holds(moved) {
		t.Error("an hour later the tag is where it was")
	}
	if n := r.heads(t, clock, "1.0", 6); n != 6 {
		t.Errorf("a tag that can be moved again was asked about %d of 6 times", n)
	}
}

func TestDeniedTagMutabilityIsLoggedOnceAndNotReadForAnHour(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, "", "")
	r.add(t, "1.0", time.Hour)
	r.setMutability(t, ecrtest.TagMutability{Immutable: true})
	asked := make(map[time.Time]bool) // the SDK repeats requests that a server with another clock refuses
	r.ecr.Inject(ecrtest.Fault{
		On: ecrtest.API, Operation: "DescribeRepositories", Status: http.StatusBadRequest, Code: "AccessDeniedException",
		Notify: func() { asked[clock.Now()] = true },
	})
	for want := range 3 { // at first when the tag is no longer fresh, then an hour later
		if len(asked) != want {
			t.Errorf("the setting was asked for %d times, want %d", len(asked), want)
		}
		if n := r.heads(t, clock, "1.0", 6); n != 6 {
			t.Errorf("the tag was asked about %d of 6 times", n)
		}
	}
	if n := bytes.Count(r.log.Bytes(), []byte("ecr:DescribeRepositories, and to silence")); n != 1 {
		t.Errorf("it was logged %d times:\n%s", n, r.log.Bytes())
	}
}

func TestTagMutabilityIsNotReadWhenTurnedOff(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, ", immutable_tags: false", "")
	r.add(t, "1.0", time.Hour)
	r.setMutability(t, ecrtest.TagMutability{Immutable: true})
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.API, Operation: "DescribeRepositories", Notify: func() { t.Error("the setting was read") }})
	if n := r.heads(t, clock, "1.0", 6); n != 6 {
		t.Errorf("the tag was asked about %d of 6 times", n)
	}
}

// Immutable tags must not become stale while the link is down.
func TestTagMutabilityHoldsWhileItCannotBeRead(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, "", "")
	r.add(t, "1.0", time.Hour)
	r.setMutability(t, ecrtest.TagMutability{Immutable: true})
	r.heads(t, clock, "1.0", 3)
	r.ecr.Inject(ecrtest.Fault{On: ecrtest.API, Operation: "DescribeRepositories", Status: http.StatusInternalServerError})
	repo := cache.Repository{Upstream: r.ecr.Host(), Name: "team/app"}
	clock.Advance(time.Minute)
	for range 2 {
		r.tags.ReadQueued(t.Context())
		if _, ok := r.tags.Since(repo, "1.0"); !ok {
			t.Error("the setting is forgotten")
		}
		clock.Advance(20 * time.Minute)
	}
	clock.Advance(upkeep.MutabilityTTL)
	if _, ok := r.tags.Since(repo, "1.0"); ok {
		t.Error("the setting still holds after its time")
	}
}

const describeRepositories = "ecr:DescribeRepositories"

// settingsRead returns how many calls have asked for the settings of repositories.
func (r *rig) settingsRead() int {
	return r.ecr.AWS().Calls()[ecrtest.Call{Principal: larderUser, Region: "us-east-1", Action: describeRepositories}]
}

// immutableRepositories adds repositories with immutable tags to the registry.
func (r *rig) immutableRepositories(t *testing.T, n int) []cache.Repository {
	t.Helper()
	var all []cache.Repository
	for i := range n {
		repo := cache.Repository{Upstream: r.ecr.Host(), Name: fmt.Sprintf("team/app-%d", i)}
		if err := r.ecr.SetTagMutability(repo.Name, ecrtest.TagMutability{Immutable: true}); err != nil {
			t.Fatal(err)
		}
		all = append(all, repo)
	}
	return all
}

// known asks about a tag of each repository, lets what is queued be read, and returns in how
// many the tag is known to be immutable.
func (r *rig) known(t *testing.T, repos []cache.Repository) (known int) {
	t.Helper()
	for _, repo := range repos {
		r.tags.Since(repo, "1.0")
	}
	r.tags.ReadQueued(t.Context())
	for _, repo := range repos {
		if _, ok := r.tags.Since(repo, "1.0"); ok {
			known++
		}
	}
	return known
}

func TestSettingsOfFiveHundredRepositoriesAreReadInFewCalls(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, "", "")
	repos := r.immutableRepositories(t, 500)
	const step = 5 * time.Minute
	for at := time.Duration(0); at < 24*time.Hour; at += step {
		known := r.known(t, repos)
		if at >= 10*time.Minute && known < len(repos) {
			t.Fatalf("after %v: %d of %d are known to be immutable", at, known, len(repos))
		}
		if calls, most := r.settingsRead(), 18+8*int(at/time.Hour); calls > most {
			t.Fatalf("after %v: %d calls, want at most %d", at, calls, most)
		}
		clock.Advance(step)
	}
}

func TestRepositoryThatCannotBeReadDoesNotHideOthers(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, "", "")
	repos := r.immutableRepositories(t, 10)
	gone := cache.Repository{Upstream: r.ecr.Host(), Name: "team/gone"}
	all := append(slices.Clone(repos[:7]), gone)
	all = append(all, repos[7:]...)
	for hour := range 6 {
		known := 0
		for range 6 {
			known = r.known(t, all)
			clock.Advance(10 * time.Minute)
		}
		if known != len(repos) {
			t.Errorf("in hour %d, %d of %d are known to be immutable", hour, known, len(repos))
		}
	}
	// The first hour finds the missing one; then it is asked for alone, once an hour.
	if calls := r.settingsRead(); calls > 10+6*3 {
		t.Errorf("%d calls in six hours", calls)
	}
}

func TestRegistryThatDeniesItsSettingsIsAskedOnceAnHour(t *testing.T) {
	clock := ecrtest.NewClock()
	r := newRigAt(t, clock.Now, "", "")
	repos := r.immutableRepositories(t, 50)
	asked := make(map[time.Time]bool) // the SDK repeats requests that a server with another clock refuses
	r.ecr.Inject(ecrtest.Fault{
		On: ecrtest.API, Operation: "DescribeRepositories", Status: http.StatusBadRequest, Code: "AccessDeniedException",
		Notify: func() { asked[clock.Now()] = true },
	})
	for range 3 * 6 {
		if known := r.known(t, repos); known != 0 {
			t.Fatalf("%d are known", known)
		}
		clock.Advance(10 * time.Minute)
	}
	if len(asked) != 3 {
		t.Errorf("%d calls in three hours, want 3", len(asked))
	}
}
