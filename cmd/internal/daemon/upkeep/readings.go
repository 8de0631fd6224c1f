package upkeep

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
)

// readings decides which lifecycle policies to read when, so that a fleet of nodes
// stays far below what ECR allows an account: it publishes no quota for these calls,
// which other tools share. It counts with 1,000 nodes that have 500 repositories
// each: at most 100 calls a second in the first hour after all have started, and 10
// after that, together with those of ImmutableTags. It belongs to one goroutine.
type readings struct {
	of map[cache.Repository]*reading

	began   time.Time // when balance was first asked for
	counted time.Time // until when the balance has grown
	balance float64   // calls that may be made now; negative after a repository with many images
}

// reading is what is known of one repository from its last readings.
type reading struct {
	checked   time.Time              // the policy; zero if never
	described time.Time              // the images; zero if never
	evaluated time.Time              // when ECR had last evaluated the policy
	listed    map[digest.Digest]bool // which images in the cache ECR had
}

const (
	// firstCalls is how many calls may be made at once, callsFirstHour how many more in
	// the first hour, and callsPerHour after that: 89 and 7.5 a second for the fleet.
	firstCalls     = 50
	callsFirstHour = 270
	callsPerHour   = 27
	// callPause is the time for each call: 83 a second if all nodes do it together.
	callPause = 12 * time.Second
	// checkEvery is how often a policy is read again, if eviction is near. ECR evaluates
	// a policy at least daily.
	checkEvery = 12 * time.Hour
	// describeEvery is how often the images are read again though ECR has not evaluated
	// the policy since.
	describeEvery = 24 * time.Hour
	// checkFailed is how long a policy that could not be read is left alone.
	checkFailed = time.Hour
)

// grow adds the calls that have become allowed.
func (r *readings) grow(now time.Time) {
	if r.began.IsZero() {
		r.began, r.counted, r.balance = now, now, firstCalls
		return
	}
	first := r.began.Add(time.Hour)
	between := func(from, to time.Time) float64 { return max(0, to.Sub(from).Hours()) }
	early, late := between(r.counted, earlier(now, first)), between(later(r.counted, first), now)
	r.balance = min(firstCalls, r.balance+early*callsFirstHour+late*callsPerHour)
	r.counted = now
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// due returns the repositories to read, those first that were not read for longest,
// and the others in random order. A repository is read once, and then again where
// again says so.
func (r *readings) due(repos []cache.Repository, now time.Time, again func(cache.Repository) bool) []cache.Repository {
	known := make(map[cache.Repository]bool, len(repos))
	var due []cache.Repository
	for _, repo := range repos {
		known[repo] = true
		last := r.of[repo]
		if last == nil || now.Sub(last.checked) >= checkEvery && (last.checked.IsZero() || again(repo)) {
			due = append(due, repo)
		}
	}
	maps.DeleteFunc(r.of, func(repo cache.Repository, _ *reading) bool { return !known[repo] })
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	slices.SortStableFunc(due, func(a, b cache.Repository) int { return r.get(a).checked.Compare(r.get(b).checked) })
	return due
}

// get returns what is known of a repository; nothing is an empty reading.
func (r *readings) get(repo cache.Repository) reading {
	if last := r.of[repo]; last != nil {
		return *last
	}
	return reading{}
}

// seen returns the time of ECR's evaluation after which the images need not be read
// again, or zero.
func (r *readings) seen(repo cache.Repository, now time.Time) time.Time {
	if last := r.get(repo); now.Sub(last.described) < describeEvery {
		return last.evaluated
	}
	return time.Time{}
}

// spend records that calls were made.
func (r *readings) spend(calls int) { r.balance -= float64(calls) }

// failed has a repository read again, but not at once.
func (r *readings) failed(repo cache.Repository, now time.Time) {
	last := r.get(repo)
	last.checked = now.Add(checkFailed - checkEvery)
	r.of[repo] = &last
}

// refused records that a repository has no policy, or that it may not be read.
func (r *readings) refused(repo cache.Repository, now time.Time) { r.of[repo] = &reading{checked: now} }

// checked records a reading without images.
func (r *readings) checked(repo cache.Repository, now time.Time) {
	last := r.get(repo)
	last.checked = now
	r.of[repo] = &last
}

// described records a reading with images, of which these are in the cache.
func (r *readings) described(repo cache.Repository, now, evaluated time.Time, listed map[digest.Digest]bool) {
	r.of[repo] = &reading{checked: now, described: now, evaluated: evaluated, listed: listed}
}

// listed returns all images in the cache that ECR had when it was last read.
func (r *readings) listed() map[cache.RepoDigest]bool {
	all := make(map[cache.RepoDigest]bool)
	for repo, last := range r.of {
		for dgst := range last.listed {
			all[cache.RepoDigest{Repository: repo, Digest: dgst}] = true
		}
	}
	return all
}
