package lifecycle_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/lifecycle"
)

// digests returns the digests of expired images, in their order.
func digests(expired []lifecycle.Expired) []string {
	var names []string
	for _, e := range expired {
		names = append(names, string(e.Digest))
	}
	return names
}

func TestExpiredImageNamesItsRuleAndTime(t *testing.T) {
	first, second := moreThan(2, "v*"), olderThan(3, "any")
	first.Priority, second.Priority = 10, 20
	got := policyOf(t, second, first).Expired([]lifecycle.Image{
		pushed("v1", 9*day, "v1"), pushed("v2", 7*day, "v2"), pushed("v3", 5*day, "v3"), pushed("v4", 2*day, "v4"),
		pushed("other", 10*day), pushed("just", 3*day), pushed("young", 3*day-1),
	}, policyNow)
	want := []lifecycle.Expired{
		{"other", 20, ago(7 * day)},
		{"v1", 10, ago(5 * day)}, // when v3 came
		{"v2", 10, ago(2 * day)},
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
}

func TestImagePushedInTheFutureExpiresNothingInTheFuture(t *testing.T) {
	got := policyOf(t, moreThan(1, "any")).Expired([]lifecycle.Image{pushed("A", day), pushed("B", -time.Hour)}, policyNow)
	if diff := gocmp.Diff([]lifecycle.Expired{{"A", 1, policyNow}}, got); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
}

func TestPolicyExpires(t *testing.T) {
	for name, test := range map[string]struct {
		rules  []testRule
		images []lifecycle.Image
		want   []string
	}{
		"the zero policy expires nothing": {nil, []lifecycle.Image{pushed("A", 999*day)}, nil},
		"a pattern matches the whole tag": {
			[]testRule{olderThan(1, "v*")},
			[]lifecycle.Image{pushed("A", 2*day, "v1", "latest"), pushed("B", 2*day, "pv1"), pushed("C", 2*day)},
			[]string{"A"},
		},
		"an image belongs to the first rule that selects it": {
			[]testRule{moreThan(5, "v*"), olderThan(1, "any")},
			[]lifecycle.Image{pushed("A", 9*day, "v1"), pushed("B", 9*day, "x")},
			[]string{"B"},
		},
		"a rule that archives expires nothing": {
			[]testRule{olderThan(1, "v*").with(transition), olderThan(5, "any")},
			[]lifecycle.Image{pushed("A", 9*day, "v1"), pushed("B", 9*day, "x")},
			[]string{"B"},
		},
		"a huge number of days does not overflow": {
			[]testRule{olderThan(math.MaxInt, "any")},
			[]lifecycle.Image{pushed("A", 99*365*day)},
			nil,
		},
		"a count expires the oldest images and ignores archived ones": {
			[]testRule{moreThan(1, "any")},
			[]lifecycle.Image{pushed("A", 3*day), pushed("B", 2*day), archived(pushed("C", day), day)},
			[]string{"A"},
		},
		"a rule by push ignores archived images": {
			[]testRule{olderThan(5, "any")},
			[]lifecycle.Image{pushed("A", 9*day), archived(pushed("B", 9*day), 8*day)},
			[]string{"A"},
		},
		"a rule by transition selects archived images only": {
			[]testRule{since("sinceImageTransitioned", 5, "any")},
			[]lifecycle.Image{
				pushed("A", 9*day), archived(pushed("B", 9*day), 8*day), archived(pushed("C", 9*day), 4*day),
				change(archived(pushed("D", 9*day), 8*day), func(i *lifecycle.Image) { i.Archived = time.Time{} }),
			},
			[]string{"B"},
		},
		"archived images have rules of their own": {
			[]testRule{moreThan(5, "any"), since("sinceImageTransitioned", 5, "any")},
			[]lifecycle.Image{pushed("A", 9*day), archived(pushed("B", 9*day), 8*day)},
			[]string{"B"},
		},
		"an image that is being activated is selected by no rule": {
			[]testRule{moreThan(1, "any"), since("sinceImageTransitioned", 5, "any")},
			[]lifecycle.Image{
				pushed("A", 9*day),
				change(archived(pushed("B", 7*day), 8*day), func(i *lifecycle.Image) { i.Status = "ACTIVATING" }),
			},
			nil,
		},
		"a restored image counts from its restoration": {
			[]testRule{olderThan(5, "any")},
			[]lifecycle.Image{restored(pushed("A", 20*day), 6*day), restored(pushed("B", 20*day), 4*day)},
			[]string{"A"},
		},
		"a rule by pull counts from the last pull, the restoration, or else the push": {
			[]testRule{since("sinceImagePulled", 5, "any")},
			[]lifecycle.Image{
				pulled(pushed("pulled", 20*day), 6*day), pulled(pushed("pulled lately", 20*day), 4*day),
				pushed("never", 8*day), pushed("not yet", 4*day),
				restored(pulled(pushed("restored", 20*day), 9*day), 7*day),
				restored(pulled(pushed("restored lately", 20*day), 9*day), 4*day),
				pulled(restored(pushed("restored and pulled", 20*day), 9*day), 4*day),
			},
			[]string{"never", "restored", "pulled"},
		},
		"an image with an unknown push time neither expires nor counts": {
			[]testRule{moreThan(1, "any")},
			[]lifecycle.Image{pushed("A", day), {Digest: "B"}},
			nil,
		},
		"a digest given twice counts once": {
			[]testRule{moreThan(1, "any")},
			[]lifecycle.Image{pushed("A", day), pushed("A", 3*day)},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var policy lifecycle.Policy
			if test.rules != nil {
				policy = policyOf(t, test.rules...)
			}
			if diff := gocmp.Diff(test.want, digests(policy.Expired(test.images, policyNow))); diff != "" {
				t.Errorf("expired (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRelationsBetweenImagesDecideWhatCanBeRemoved(t *testing.T) {
	stale := []testRule{olderThan(5, "old*"), olderThan(1, "untagged")}
	for name, test := range map[string]struct {
		images []lifecycle.Image
		want   []string // with the days since
	}{
		"the children of an index that stays are kept": {
			[]lifecycle.Image{index(pushed("index", 3*day, "v1"), "child"), pushed("child", 9*day), pushed("other", 9*day)},
			[]string{"other 8"},
		},
		"grandchildren are kept too": {
			[]lifecycle.Image{index(pushed("index", 3*day, "v1"), "inner"), index(pushed("inner", 9*day), "child"), pushed("child", 9*day)},
			nil,
		},
		"a child expires no earlier than its index": {
			[]lifecycle.Image{index(pushed("index", 7*day, "old"), "a child"), pushed("a child", 9*day)},
			[]string{"a child 2", "index 2"},
		},
		"a grandchild and its referrer expire no earlier than the index": {
			[]lifecycle.Image{
				index(pushed("index", 7*day, "old"), "b inner"), index(pushed("b inner", 8*day), "a child"), pushed("a child", 9*day),
				about(pushed("signature", day), "a child"),
			},
			[]string{"a child 2", "b inner 2", "index 2", "signature 2"},
		},
		"a child of two indexes is kept while one of them stays": {
			[]lifecycle.Image{index(pushed("one", 7*day, "old"), "child"), index(pushed("two", 7*day, "v1"), "child"), pushed("child", 9*day)},
			[]string{"one 2"},
		},
		"an archived index keeps its children": {
			[]lifecycle.Image{archived(index(pushed("index", 9*day, "v1"), "child"), day), pushed("child", 9*day)},
			nil,
		},
		"an index that was not read keeps every untagged image that is no index": {
			[]lifecycle.Image{index(pushed("index", 3*day, "v1")), pushed("child", 9*day), pushed("other", 9*day, "old")},
			[]string{"other 4"},
		},
		"an untagged index is nobody's child": {
			[]lifecycle.Image{index(pushed("index", 3*day, "v1")), index(pushed("last build", 9*day)), pushed("child", 9*day)},
			[]string{"last build 8"},
		},
		"unless an index that was read lists it": {
			[]lifecycle.Image{index(pushed("index", 3*day, "v1"), "inner"), index(pushed("inner", 9*day)), pushed("child", 9*day)},
			nil,
		},
		"an expired index that was not read keeps nothing": {
			[]lifecycle.Image{index(pushed("index", 9*day, "old")), pushed("child", 9*day)},
			[]string{"child 8", "index 4"},
		},
		"an empty index keeps nothing": {
			[]lifecycle.Image{change(pushed("index", 3*day, "v1"), func(i *lifecycle.Image) { i.Index, i.Children = true, []digest.Digest{} }), pushed("child", 9*day)},
			[]string{"child 8"},
		},
		"referrers expire with their subject": {
			[]lifecycle.Image{pushed("image", 9*day, "old"), about(pushed("signature", day), "image"), about(pushed("note", day), "signature")},
			[]string{"image 4", "note 4", "signature 4"},
		},
		"a referrer stays with its subject or without any": {
			[]lifecycle.Image{pushed("image", 9*day, "v1"), about(pushed("signature", 9*day), "image"), about(pushed("orphan", 9*day), "gone")},
			nil,
		},
		"a referrer of a kept child is kept": {
			[]lifecycle.Image{index(pushed("index", 3*day, "v1"), "child"), pushed("child", 9*day), about(pushed("signature", 9*day), "child")},
			nil,
		},
		"referrers of each other are kept": {
			[]lifecycle.Image{about(pushed("one", 9*day), "two"), about(pushed("two", 9*day), "one"), about(pushed("self", 9*day), "self")},
			nil,
		},
		"indexes of each other expire": {
			[]lifecycle.Image{index(pushed("one", 9*day), "two"), index(pushed("two", 8*day), "one", "two")},
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
	images := []lifecycle.Image{pushed("A", 3*day), pushed("B", 2*day), about(pushed("signature", day), "B")}
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
		{"a*b*c", "a-b-b-c", "a-c-b"},
		{"ab*ba", "abba", "aba"},
		{"a**c", "ac", "acb"},
		{"*test*1*2*3", "test123", "test132"},
		{"v1.*", "v1.2", "v12"},
	} {
		images := []lifecycle.Image{pushed("A", 2*day, test.matches), pushed("B", 2*day, test.not)}
		got := digests(policyOf(t, olderThan(1, test.pattern)).Expired(images, policyNow))
		if diff := gocmp.Diff([]string{"A"}, got); diff != "" {
			t.Errorf("pattern %s, of A with tag %s and B with tag %s (-want +got):\n%s", test.pattern, test.matches, test.not, diff)
		}
	}
	if got := policyOf(t, olderThan(1, "*")).Expired([]lifecycle.Image{pushed("A", 2*day, "v1")}, policyNow); len(got) != 1 {
		t.Errorf("pattern * expires %v, want the tagged image", got)
	}
}

func TestAsteriskInAPrefixIsLiteral(t *testing.T) {
	rule := olderThan(1, "v*")
	rule.Selection.Patterns, rule.Selection.Prefixes = nil, rule.Selection.Patterns
	images := []lifecycle.Image{pushed("A", 2*day, "v*1"), pushed("B", 2*day, "v1")}
	if diff := gocmp.Diff([]string{"A"}, digests(policyOf(t, rule).Expired(images, policyNow))); diff != "" {
		t.Errorf("expired (-want +got):\n%s", diff)
	}
}
