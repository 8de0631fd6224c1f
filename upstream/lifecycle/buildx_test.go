package lifecycle_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/lifecycle"
)

// buildx returns a repository to which "docker buildx build --push" pushed a hundred
// times, a day apart and the last time today: each time an index, the manifests of
// two platforms, and the attestation manifest of each. ECR shows them as five images
// of which only the index has tags. tags returns those that a push has left.
func buildx(tags func(push int) []string) []lifecycle.Image {
	var images []lifecycle.Image
	for push := 1; push <= 100; push++ {
		age := time.Duration(100-push)*day + time.Hour
		var children []digest.Digest
		for _, kind := range []string{"amd64", "arm64", "attestation of amd64", "attestation of arm64"} {
			child := pushed(fmt.Sprintf("%s %d", kind, push), age+time.Minute)
			children = append(children, child.Digest)
			images = append(images, child)
		}
		images = append(images, index(pushed(fmt.Sprintf("index %d", push), age, tags(push)...), children...))
	}
	return images
}

// imagesOfPush is how many images a push has.
const imagesOfPush = 5

// latestOnly is a tag that moves at each push; release is another one at every tenth.
func latestOnly(push int) []string {
	if push == 100 {
		return []string{"latest"}
	}
	return nil
}

func andReleases(push int) []string {
	if push%10 == 0 {
		return append(latestOnly(push), fmt.Sprintf("v%d", push/10))
	}
	return latestOnly(push)
}

// unreadAll returns the images as ECR describes them, without children.
func unreadAll(images []lifecycle.Image) []lifecycle.Image {
	images = slices.Clone(images)
	for i := range images {
		images[i].Children = nil
	}
	return images
}

// readAll reads the indexes that the policy asks for until it asks for none, and
// returns how many those were.
func readAll(t *testing.T, policy lifecycle.Policy, described, complete []lifecycle.Image) (read int) {
	t.Helper()
	every := func(digest.Digest) bool { return true }
	for range 10 {
		wanted := policy.Unread(described, policyNow, every)
		if len(wanted) == 0 {
			return read
		}
		for i := range described {
			if slices.Contains(wanted, described[i].Digest) {
				described[i].Children = complete[i].Children
				read++
			}
		}
	}
	t.Fatal("the policy asks for indexes again and again")
	return 0
}

// The verdicts are by the documentation (user guide, "Automate the cleanup of images
// by using lifecycle policies"): an image that an index lists goes with the index and
// not before; untagged rules select indexes and children alike.
func TestUntaggedRulesExpireOldPushesOfBuildx(t *testing.T) {
	for name, test := range map[string]struct {
		tags  func(int) []string
		rules []testRule
		// gone reports whether all five images of a push have expired; the others stay.
		gone func(push int) bool
		// read is how many indexes must be read for that.
		read int
	}{
		"untagged for a day, with one tag": {
			latestOnly, []testRule{olderThan(1, "untagged")}, func(push int) bool { return push < 100 }, 1,
		},
		"untagged for fourteen days, with one tag": {
			latestOnly, []testRule{olderThan(14, "untagged")}, func(push int) bool { return push <= 86 }, 14,
		},
		"untagged for a day, with releases": {
			andReleases, []testRule{olderThan(1, "untagged")}, func(push int) bool { return push < 100 && push%10 != 0 }, 10,
		},
		"the last three releases, and untagged for a day": {
			andReleases, []testRule{moreThan(3, "v*"), olderThan(1, "untagged")}, func(push int) bool { return push < 100 && push != 80 && push != 90 }, 3,
		},
		"any for thirty days": {
			andReleases, []testRule{olderThan(30, "any")}, func(push int) bool { return push <= 70 }, 30,
		},
	} {
		t.Run(name, func(t *testing.T) {
			complete := buildx(test.tags)
			var want, wantUnread []string
			for i, img := range complete {
				if push := i/imagesOfPush + 1; test.gone(push) {
					want = append(want, string(img.Digest))
					if img.Index {
						wantUnread = append(wantUnread, string(img.Digest))
					}
				}
			}
			policy := policyOf(t, test.rules...)
			verdicts := func(images []lifecycle.Image) []string {
				got := digests(policy.Expired(images, policyNow))
				slices.Sort(got)
				return got
			}
			slices.Sort(want)
			slices.Sort(wantUnread)
			if diff := gocmp.Diff(want, verdicts(complete)); diff != "" {
				t.Errorf("all indexes read (-want +got):\n%s", diff)
			}
			described := unreadAll(complete)
			if diff := gocmp.Diff(wantUnread, verdicts(described)); diff != "" {
				t.Errorf("no index read: not exactly the indexes expire (-want +got):\n%s", diff)
			}
			if read := readAll(t, policy, described, complete); read != test.read {
				t.Errorf("%d indexes were read, want %d: those that stay", read, test.read)
			}
			if diff := gocmp.Diff(want, verdicts(described)); diff != "" {
				t.Errorf("the wanted indexes read (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIndexesAreReadOnlyForImagesThatMatter(t *testing.T) {
	policy := policyOf(t, olderThan(1, "untagged"))
	images := []lifecycle.Image{index(pushed("index", 3*day, "v1")), pushed("child", 9*day), pushed("young", time.Hour)}
	for of, want := range map[digest.Digest][]digest.Digest{"child": {"index"}, "young": nil, "index": nil, "elsewhere": nil} {
		got := policy.Unread(images, policyNow, func(d digest.Digest) bool { return d == of })
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("for %s (-want +got):\n%s", of, diff)
		}
	}
}

func TestPolicyTellsWhetherItCountsPulls(t *testing.T) {
	if policyOf(t, olderThan(1, "untagged")).CountsPulls() {
		t.Error("a policy by push counts pulls")
	}
	if !policyOf(t, olderThan(1, "untagged"), since("sinceImagePulled", 30, "any")).CountsPulls() {
		t.Error("a policy by pull counts none")
	}
}
