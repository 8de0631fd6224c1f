package upstream

import (
	"fmt"
	"math"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// digests returns what expires, the oldest expiry first.
func digests(expired []Expiry) []string {
	var names []string
	for _, e := range expired {
		names = append(names, string(e.Digest))
	}
	return names
}

// The examples of the user guide, "Examples of lifecycle policies in Amazon ECR".
func TestPolicyExpiresWhatTheDocumentationSays(t *testing.T) {
	three := []Image{
		pushed("A", 10*day, "beta-1", "prod-1"),
		pushed("B", 9*day, "beta-2", "prod-2"),
		pushed("C", 8*day, "beta-3"),
	}
	for name, test := range map[string]struct {
		images []Image
		rules  []testRule
		want   []string
	}{
		"two rules, production first": {three, []testRule{moreThan(1, "prod*"), moreThan(1, "beta*")}, []string{"A"}},
		"two rules, beta first":       {three, []testRule{moreThan(1, "beta*"), moreThan(1, "prod*")}, []string{"A", "B"}},
		"two patterns by age": {
			[]Image{
				pushed("A", 12*day, "alpha-1"),
				pushed("B", 11*day, "beta-1"),
				pushed("C", 10*day, "alpha-2", "beta-2"),
				pushed("D", 4*day, "alpha-3"),
				pushed("E", 3*day, "beta-3"),
				pushed("F", 2*day, "alpha-4", "beta-4"),
			},
			[]testRule{olderThan(5, "alpha*", "beta*")},
			[]string{"C"},
		},
		"two patterns by count": {
			[]Image{
				pushed("A", 10*day, "alpha-1", "beta-1", "gamma-1"),
				pushed("B", 9*day, "alpha-2", "beta-2"),
				pushed("C", 8*day, "alpha-3", "beta-3", "gamma-2"),
			},
			[]testRule{moreThan(1, "alpha*", "beta*")},
			[]string{"A", "B"},
		},
		"any image": {
			[]Image{
				pushed("A", 4*day, "alpha-1"),
				pushed("B", 3*day, "beta-1"),
				pushed("C", 2*day),
				pushed("D", 1*day, "alpha-2"),
			},
			[]testRule{moreThan(1, "any")},
			[]string{"A", "B", "C"},
		},
		"tagged, untagged and any": {
			[]Image{
				pushed("A", 4*day, "alpha-1", "beta-1"),
				pushed("B", 3*day),
				pushed("C", 2*day, "alpha-2"),
				pushed("D", 1*day, "git hash"),
				pushed("E", 1*day-time.Minute),
			},
			[]testRule{moreThan(1, "alpha*"), olderThan(1, "untagged"), moreThan(1, "any")},
			[]string{"A", "B", "D"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(map[string]bool)
			for _, name := range digests(policyOf(t, test.rules...).Expired(test.images, policyNow)) {
				got[name] = true
			}
			want := make(map[string]bool)
			for _, name := range test.want {
				want[name] = true
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Errorf("expired (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExpiryTellsItsRuleAndItsTime(t *testing.T) {
	first, second := moreThan(2, "v*"), olderThan(3, "any")
	first.Priority, second.Priority = 10, 20
	got := policyOf(t, second, first).Expired([]Image{
		pushed("v1", 9*day, "v1"), pushed("v2", 7*day, "v2"), pushed("v3", 5*day, "v3"), pushed("v4", 2*day, "v4"),
		pushed("other", 10*day), pushed("just", 3*day), pushed("young", 3*day-1),
	}, policyNow)
	want := []Expiry{
		{"other", 20, ago(7 * day)},
		{"v1", 10, ago(5 * day)}, // when v3 came
		{"v2", 10, ago(2 * day)},
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
}

func TestUpstreamWhoseClockIsAheadExpiresNothingInTheFuture(t *testing.T) {
	got := policyOf(t, moreThan(1, "any")).Expired([]Image{pushed("A", day), pushed("B", -time.Hour)}, policyNow)
	if diff := gocmp.Diff([]Expiry{{"A", 1, policyNow}}, got); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
}

func TestPolicyExpires(t *testing.T) {
	for name, test := range map[string]struct {
		rules  []testRule
		images []Image
		want   []string
	}{
		"nothing by the zero policy": {nil, []Image{pushed("A", 999*day)}, nil},
		"what no pattern matches in part only": {
			[]testRule{olderThan(1, "v*")},
			[]Image{pushed("A", 2*day, "v1", "latest"), pushed("B", 2*day, "pv1"), pushed("C", 2*day)},
			[]string{"A"},
		},
		"nothing that an earlier rule selects and keeps": {
			[]testRule{moreThan(5, "v*"), olderThan(1, "any")},
			[]Image{pushed("A", 9*day, "v1"), pushed("B", 9*day, "x")},
			[]string{"B"},
		},
		"nothing that goes to the archive": {
			[]testRule{olderThan(1, "v*").with(transition), olderThan(5, "any")},
			[]Image{pushed("A", 9*day, "v1"), pushed("B", 9*day, "x")},
			[]string{"B"},
		},
		"nothing in a hundred years": {
			[]testRule{olderThan(math.MaxInt, "any")},
			[]Image{pushed("A", 99*365*day)},
			nil,
		},
		"by count, the older ones, of which archived ones are none": {
			[]testRule{moreThan(1, "any")},
			[]Image{pushed("A", 3*day), pushed("B", 2*day), archived(pushed("C", day), day)},
			[]string{"A"},
		},
		"by push, what is not archived": {
			[]testRule{olderThan(5, "any")},
			[]Image{pushed("A", 9*day), archived(pushed("B", 9*day), 8*day)},
			[]string{"A"},
		},
		"by transition, what is archived": {
			[]testRule{since("sinceImageTransitioned", 5, "any")},
			[]Image{
				pushed("A", 9*day), archived(pushed("B", 9*day), 8*day), archived(pushed("C", 9*day), 4*day),
				change(archived(pushed("D", 9*day), 8*day), func(i *Image) { i.Archived = time.Time{} }),
			},
			[]string{"B"},
		},
		"archived images by rules of their own": {
			[]testRule{moreThan(5, "any"), since("sinceImageTransitioned", 5, "any")},
			[]Image{pushed("A", 9*day), archived(pushed("B", 9*day), 8*day)},
			[]string{"B"},
		},
		"nothing on its way out of the archive": {
			[]testRule{moreThan(1, "any"), since("sinceImageTransitioned", 5, "any")},
			[]Image{
				pushed("A", 9*day),
				change(archived(pushed("B", 7*day), 8*day), func(i *Image) { i.Status = "ACTIVATING" }),
			},
			nil,
		},
		"what was restored by the time of that": {
			[]testRule{olderThan(5, "any")},
			[]Image{restored(pushed("A", 20*day), 6*day), restored(pushed("B", 20*day), 4*day)},
			[]string{"A"},
		},
		"by the last pull, the restoration, or else the push": {
			[]testRule{since("sinceImagePulled", 5, "any")},
			[]Image{
				pulled(pushed("pulled", 20*day), 6*day), pulled(pushed("pulled lately", 20*day), 4*day),
				pushed("never", 8*day), pushed("not yet", 4*day),
				restored(pulled(pushed("restored", 20*day), 9*day), 7*day),
				restored(pulled(pushed("restored lately", 20*day), 9*day), 4*day),
				pulled(restored(pushed("restored and pulled", 20*day), 9*day), 4*day),
			},
			[]string{"never", "restored", "pulled"},
		},
		"nothing whose push time is unknown, and nothing because of it": {
			[]testRule{moreThan(1, "any")},
			[]Image{pushed("A", day), {Digest: "B"}},
			nil,
		},
		"an image once": {
			[]testRule{moreThan(1, "any")},
			[]Image{pushed("A", day), pushed("A", 3*day)},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var policy LifecyclePolicy
			if test.rules != nil {
				policy = policyOf(t, test.rules...)
			}
			if diff := gocmp.Diff(test.want, digests(policy.Expired(test.images, policyNow))); diff != "" {
				t.Errorf("expired (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRelatedImagesExpireTogether(t *testing.T) {
	stale := []testRule{olderThan(5, "old*"), olderThan(1, "untagged")}
	for name, test := range map[string]struct {
		images []Image
		want   []string // with the days since
	}{
		"what a list that stays refers to": {
			[]Image{index(pushed("list", 3*day, "v1"), "child"), pushed("child", 9*day), pushed("other", 9*day)},
			[]string{"other 8"},
		},
		"even by way of another list": {
			[]Image{index(pushed("list", 3*day, "v1"), "inner"), index(pushed("inner", 9*day), "child"), pushed("child", 9*day)},
			nil,
		},
		"a list that expires goes before what it refers to": {
			[]Image{index(pushed("list", 7*day, "old"), "a child"), pushed("a child", 9*day)},
			[]string{"a child 2", "list 2"},
		},
		"and before what that refers to": {
			[]Image{
				index(pushed("list", 7*day, "old"), "b inner"), index(pushed("b inner", 8*day), "a child"), pushed("a child", 9*day),
				about(pushed("signature", day), "a child"),
			},
			[]string{"a child 2", "b inner 2", "list 2", "signature 2"},
		},
		"one list of two stays": {
			[]Image{index(pushed("one", 7*day, "old"), "child"), index(pushed("two", 7*day, "v1"), "child"), pushed("child", 9*day)},
			[]string{"one 2"},
		},
		"a list in the archive holds what it refers to": {
			[]Image{archived(index(pushed("list", 9*day, "v1"), "child"), day), pushed("child", 9*day)},
			nil,
		},
		"a list that nobody has read may refer to anything untagged": {
			[]Image{index(pushed("list", 3*day, "v1")), pushed("child", 9*day), pushed("other", 9*day, "old")},
			[]string{"other 4"},
		},
		"once that list expires it holds nothing": {
			[]Image{index(pushed("list", 9*day, "old")), pushed("child", 9*day)},
			[]string{"child 8", "list 4"},
		},
		"a list of nothing holds nothing": {
			[]Image{change(pushed("list", 3*day, "v1"), func(i *Image) { i.Index, i.Children = true, []digest.Digest{} }), pushed("child", 9*day)},
			[]string{"child 8"},
		},
		"a referrer goes with its subject, and what refers to it": {
			[]Image{pushed("image", 9*day, "old"), about(pushed("signature", day), "image"), about(pushed("note", day), "signature")},
			[]string{"image 4", "note 4", "signature 4"},
		},
		"a referrer stays with its subject, or without one": {
			[]Image{pushed("image", 9*day, "v1"), about(pushed("signature", 9*day), "image"), about(pushed("orphan", 9*day), "gone")},
			nil,
		},
		"a referrer stays with a subject that a list refers to": {
			[]Image{index(pushed("list", 3*day, "v1"), "child"), pushed("child", 9*day), about(pushed("signature", 9*day), "child")},
			nil,
		},
		"referrers of each other stay": {
			[]Image{about(pushed("one", 9*day), "two"), about(pushed("two", 9*day), "one"), about(pushed("self", 9*day), "self")},
			nil,
		},
		"lists of each other go": {
			[]Image{index(pushed("one", 9*day), "two"), index(pushed("two", 8*day), "one", "two")},
			[]string{"one 7", "two 7"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, e := range policyOf(t, stale...).Expired(test.images, policyNow) {
				got = append(got, fmt.Sprintf("%s %g", e.Digest, policyNow.Sub(e.Since).Hours()/24))
			}
			if diff := gocmp.Diff(test.want, got); diff != "" {
				t.Errorf("expired (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReferrersAreNotCounted(t *testing.T) {
	images := []Image{pushed("A", 3*day), pushed("B", 2*day), about(pushed("signature", day), "B")}
	if got := policyOf(t, moreThan(2, "any")).Expired(images, policyNow); len(got) != 0 {
		t.Errorf("expired %v", got)
	}
}

func TestTagPattern(t *testing.T) {
	for _, test := range []struct{ pattern, matches, not string }{
		{"prod", "prod", "prod1"},
		{"prod*", "prod", "aprod"},
		{"prod*", "prod-1", "pro"},
		{"*prod", "my-prod", "prod1"},
		{"*prod*", "a-prod-b", "pro-d"},
		{"*", "v1", "\x00"},
		{"a*b*c", "a-b-b-c", "a-c-b"},
		{"ab*ba", "abba", "aba"},
		{"a**c", "ac", "acb"},
		{"*test*1*2*3", "test123", "test132"},
		{"v1.*", "v1.2", "v12"},
	} {
		p := parseTagPattern(test.pattern)
		if !p.matches(test.matches) {
			t.Errorf("%s does not match %s", test.pattern, test.matches)
		}
		if test.pattern != "*" && p.matches(test.not) {
			t.Errorf("%s matches %s", test.pattern, test.not)
		}
	}
	if p := prefixPattern("v*"); p.matches("v1") || !p.matches("v*1") {
		t.Error("a prefix has wildcards")
	}
}
