// The tests of this file are inside the package: the fleet that they simulate has no
// servers.
package upkeep

import (
	"fmt"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/pace"
)

// fleetStart is when the simulated nodes start, all at once.
var fleetStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func repositories(n int) []cache.Repository {
	repos := make([]cache.Repository, n)
	for i := range repos {
		repos[i] = cache.Repository{Upstream: "123456789012.dkr.ecr.us-east-1.amazonaws.com", Name: fmt.Sprint("app", i)}
	}
	return repos
}

// node is one simulated node, which does what Run and ecrPolicies.round do.
type node struct {
	readings readings
	next     time.Time // its next round
}

// round makes the calls of one round and tells of each. Every repository has a policy
// that ECR evaluates once a day, and images on one page.
func (n *node) round(repos []cache.Repository, near bool, call func(at time.Time)) {
	at := n.next
	n.readings.grow(at)
	for _, repo := range n.readings.due(repos, at, func(cache.Repository) bool { return near }) {
		if n.readings.balance < 1 {
			break
		}
		calls, evaluated := 1, at.Truncate(24*time.Hour)
		if !n.readings.seen(repo, at).Equal(evaluated) {
			calls = 2
			n.readings.described(repo, at, evaluated, nil)
		} else {
			n.readings.checked(repo, at)
		}
		for range calls {
			call(at)
		}
		n.readings.spend(calls)
		at = at.Add(time.Duration(calls) * callPause)
	}
	n.next = at.Add(pace.Jittered(lifecycleEvery))
}

// Each of the ten simulated nodes stands for a hundred.
func TestFleetOfAThousandNodesAsksECRLittle(t *testing.T) {
	const nodes, each, days = 10, 100, 4
	repos := repositories(500)
	seconds := make(map[bool]float64) // calls a second in the first hour, and on the last two days
	var busiest [60]int               // by minute of the first hour
	read := make(map[cache.Repository]time.Time)
	for i := range nodes {
		n := &node{readings: readings{of: make(map[cache.Repository]*reading)}, next: fleetStart.Add(pace.Jittered(lifecycleFirst))}
		for n.next.Before(fleetStart.Add(days * 24 * time.Hour)) {
			n.round(repos, true, func(at time.Time) {
				switch since := at.Sub(fleetStart); {
				case since < time.Hour:
					busiest[int(since.Minutes())]++
					seconds[true] += each / time.Hour.Seconds()
				case since >= 2*24*time.Hour:
					seconds[false] += each / (48 * time.Hour).Seconds()
				}
			})
		}
		if i == 0 {
			for repo, last := range n.readings.of {
				read[repo] = last.described
			}
		}
	}
	// The nodes also read which tags are immutable, as often as they may.
	seconds[true] += nodes * each * (firstMutabilityCalls + mutabilityCallsPerHour) / time.Hour.Seconds()
	seconds[false] += nodes * each * mutabilityCallsPerHour / time.Hour.Seconds()
	t.Logf("calls a second: %.1f in the first hour, %.1f on the last two days", seconds[true], seconds[false])
	if seconds[true] > 100 || seconds[false] > 10 {
		t.Errorf("calls a second: %.1f in the first hour, want 100 at most; %.1f in the long run, want 10 at most", seconds[true], seconds[false])
	}
	for minute, calls := range busiest {
		if rate := float64(calls) * each / 60; rate > 120 {
			t.Errorf("%.0f calls a second in minute %d", rate, minute)
		}
	}
	for _, repo := range repos {
		if age := fleetStart.Add(days * 24 * time.Hour).Sub(read[repo]); age > 48*time.Hour {
			t.Errorf("%s was last read %v ago", repo.Name, age)
		}
	}
}

func TestSmallNodeReadsEveryPolicyInItsFirstRoundAndTwiceADay(t *testing.T) {
	repos := repositories(20)
	n := &node{readings: readings{of: make(map[cache.Repository]*reading)}, next: fleetStart}
	calls := 0
	n.round(repos, true, func(time.Time) { calls++ })
	if calls != 40 {
		t.Errorf("%d calls in the first round, want two for each repository", calls)
	}
	calls = 0
	begin := n.next
	for n.next.Before(begin.Add(4 * 24 * time.Hour)) {
		n.round(repos, true, func(time.Time) { calls++ })
	}
	if perDay := calls / 4 / len(repos); perDay < 2 || perDay > 3 {
		t.Errorf("%d calls a day for each repository, want one for each half day, and one for the images", perDay)
	}
}

func TestPoliciesAreReadOnceWhileEvictionIsFar(t *testing.T) {
	repos := repositories(20)
	n := &node{readings: readings{of: make(map[cache.Repository]*reading)}, next: fleetStart}
	calls := 0
	for n.next.Before(fleetStart.Add(7 * 24 * time.Hour)) {
		n.round(repos, false, func(time.Time) { calls++ })
	}
	if calls != 40 {
		t.Errorf("%d calls, want two for each repository", calls)
	}
}

func TestRepositoryWithManyImagesIsPaidForLater(t *testing.T) {
	r := readings{of: make(map[cache.Repository]*reading)}
	r.grow(fleetStart)
	r.spend(101)
	r.grow(fleetStart.Add(5 * time.Minute))
	if r.balance >= 1 {
		t.Errorf("after 101 calls, %v may be made", r.balance)
	}
	r.grow(fleetStart.Add(15 * time.Minute))
	if r.balance < 1 {
		t.Errorf("later, %v may be made", r.balance)
	}
}

func TestFailedReadingIsRepeatedAfterAnHour(t *testing.T) {
	repos := repositories(1)
	r := readings{of: make(map[cache.Repository]*reading)}
	near := func(cache.Repository) bool { return true }
	r.described(repos[0], fleetStart, fleetStart, nil)
	at := fleetStart.Add(checkEvery)
	r.failed(repos[0], at)
	if due := r.due(repos, at.Add(checkFailed-time.Second), near); len(due) != 0 {
		t.Error("it is due again at once")
	}
	if due := r.due(repos, at.Add(checkFailed), near); len(due) != 1 {
		t.Error("it is not due after an hour")
	}
	if due := r.due(nil, at, near); len(due) != 0 || len(r.of) != 0 {
		t.Error("a repository that is not in the cache any more is remembered")
	}
}

func TestEvictionIsNearWhenTheCacheCanGrowLittle(t *testing.T) {
	for _, c := range []struct {
		bytes, maxSize, free int64
		near                 bool
	}{
		{79, 100, 1000, false}, {80, 100, 1000, true}, {120, 100, 1000, true},
		{79, 0, 1000, false}, {79, 0, 15, true}, {10, 100, 1, true}, {0, 100, 1000, false},
	} {
		if got := evictionIsNear(cache.Activity{Bytes: c.bytes, MaxSize: c.maxSize, Free: c.free}); got != c.near {
			t.Errorf("%+v: %t", c, got)
		}
	}
}
