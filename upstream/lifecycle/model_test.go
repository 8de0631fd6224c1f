package lifecycle_test

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/larder-registry/larder/upstream/lifecycle"
)

// naiveExpired evaluates rules as the documentation words them, one image
// and one question at a time.
func naiveExpired(rules []testRule, images []lifecycle.Image, now time.Time) []lifecycle.Expired {
	expired := make(map[digest.Digest]lifecycle.Expired)
	for _, img := range images {
		for _, rule := range byPriority(rules) {
			if !naiveSelects(rule, img) {
				continue
			}
			if since, marks := naiveMarks(rule, img, images, now); marks && rule.Action.Type == "expire" {
				expired[img.Digest] = lifecycle.Expired{img.Digest, rule.Priority, since}
			}
			break // no rule of a lower priority can expire it
		}
	}
	naiveReferences(expired, images)
	var all []lifecycle.Expired
	for _, e := range expired {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b lifecycle.Expired) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Digest, b.Digest))
	})
	return all
}

func byPriority(rules []testRule) []testRule {
	return slices.SortedFunc(slices.Values(rules), func(a, b testRule) int { return cmp.Compare(a.Priority, b.Priority) })
}

func naiveSelects(rule testRule, img lifecycle.Image) bool {
	class := map[string]string{"": "standard", "ACTIVE": "standard", "ARCHIVED": "archive"}[img.Status]
	if img.Subject != "" || img.Pushed.IsZero() || class != cmp.Or(rule.Selection.Class, "standard") {
		return false
	}
	switch rule.Selection.TagStatus {
	case "any":
		return true
	case "untagged":
		return len(img.Tags) == 0
	}
	matched := 0
	for _, pattern := range rule.Selection.Patterns {
		form := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$")
		if slices.ContainsFunc(img.Tags, form.MatchString) {
			matched++
		}
	}
	for _, prefix := range rule.Selection.Prefixes {
		if slices.ContainsFunc(img.Tags, func(tag string) bool { return strings.HasPrefix(tag, prefix) }) {
			matched++
		}
	}
	return matched == len(rule.Selection.Patterns)+len(rule.Selection.Prefixes)
}

func naiveMarks(rule testRule, img lifecycle.Image, images []lifecycle.Image, now time.Time) (since time.Time, marks bool) {
	pushedAt := func(img lifecycle.Image) time.Time {
		if img.Activated.IsZero() {
			return img.Pushed
		}
		return img.Activated
	}
	if rule.Selection.CountType == "imageCountMoreThan" {
		var younger []time.Time
		for _, other := range images {
			if naiveSelects(rule, other) && (pushedAt(other).After(pushedAt(img)) ||
				pushedAt(other).Equal(pushedAt(img)) && other.Digest < img.Digest) {
				younger = append(younger, pushedAt(other))
			}
		}
		if len(younger) < rule.Selection.Number {
			return time.Time{}, false
		}
		slices.SortFunc(younger, time.Time.Compare)
		since = younger[rule.Selection.Number-1]
		if since.After(now) {
			since = now
		}
		return since, true
	}
	from := map[string]time.Time{
		"sinceImagePushed":       pushedAt(img),
		"sinceImageTransitioned": img.Archived,
		"sinceImagePulled":       slices.MaxFunc([]time.Time{img.Pulled, img.Activated}, time.Time.Compare),
	}[rule.Selection.CountType]
	if rule.Selection.CountType == "sinceImagePulled" && from.IsZero() {
		from = img.Pushed
	}
	age := time.Duration(rule.Selection.Number) * 24 * time.Hour
	return from.Add(age), !from.IsZero() && now.Sub(from) > age
}

// naiveReferences applies the relations: it goes through all pairs of images until nothing changes.
func naiveReferences(expired map[digest.Digest]lifecycle.Expired, images []lifecycle.Image) {
	pairs := func(do func(a, b lifecycle.Image) (changed bool)) {
		for changed := true; changed; {
			changed = false
			for _, a := range images {
				for _, b := range images {
					changed = do(a, b) || changed
				}
			}
		}
	}
	has := func(img lifecycle.Image) bool { _, ok := expired[img.Digest]; return ok }
	pairs(func(subject, referrer lifecycle.Image) bool {
		if referrer.Subject != subject.Digest || !has(subject) || has(referrer) {
			return false
		}
		expired[referrer.Digest] = lifecycle.Expired{referrer.Digest, expired[subject.Digest].Rule, expired[subject.Digest].Since}
		return true
	})
	needs := func(a, b lifecycle.Image) bool { return b.Subject == a.Digest || slices.Contains(a.Children, b.Digest) }
	pairs(func(a, b lifecycle.Image) bool {
		unread := a.Index && a.Children == nil && len(b.Tags) == 0 && !b.Index
		if has(a) || !has(b) || !needs(a, b) && !unread {
			return false
		}
		delete(expired, b.Digest)
		return true
	})
	pairs(func(a, b lifecycle.Image) bool {
		ea, eb := expired[a.Digest], expired[b.Digest]
		if !has(a) || !has(b) || !needs(a, b) || !eb.Since.Before(ea.Since) {
			return false
		}
		expired[b.Digest] = lifecycle.Expired{b.Digest, eb.Rule, ea.Since}
		return true
	})
}

// drawAge returns a number of days, give or take a little.
func drawAge(t *rapid.T, name string) time.Duration {
	return time.Duration(rapid.IntRange(-1, 12).Draw(t, name))*day +
		rapid.SampledFrom([]time.Duration{0, 1, -1, time.Hour}).Draw(t, name+" and")
}

func drawTime(t *rapid.T, name string) time.Time {
	if rapid.IntRange(0, 2).Draw(t, name+" known") > 0 {
		return time.Time{}
	}
	return ago(drawAge(t, name))
}

// drawImages returns images with unrelated tags and times; related ones list
// and refer to each other as well, cycles included.
func drawImages(t *rapid.T, related bool) []lifecycle.Image {
	images := make([]lifecycle.Image, rapid.IntRange(0, 14).Draw(t, "images"))
	name := func() digest.Digest {
		return digest.Digest(rune('a' + rapid.IntRange(0, len(images)).Draw(t, "related")))
	}
	for i := range images {
		images[i] = lifecycle.Image{
			Digest: digest.Digest(rune('a' + i)),
			Tags: rapid.SliceOfN(rapid.SampledFrom([]string{"v1", "v2", "v10", "beta", "beta-v1", "", "x*"}), 0, 3).
				Draw(t, "tags"),
			Pushed:    ago(drawAge(t, "pushed")),
			Pulled:    drawTime(t, "pulled"),
			Archived:  drawTime(t, "archived"),
			Activated: drawTime(t, "activated"),
			Status:    rapid.SampledFrom([]string{"", "ACTIVE", "ACTIVE", "ARCHIVED", "ACTIVATING"}).Draw(t, "status"),
		}
		if rapid.IntRange(0, 19).Draw(t, "unknown") == 0 {
			images[i].Pushed = time.Time{}
		}
		if !related {
			continue
		}
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0, 1:
			images[i].Subject = name()
		case 2, 3, 4:
			images[i].Index, images[i].Children = true, []digest.Digest{name(), name()}
		case 5:
			images[i].Index = rapid.Bool().Draw(t, "unread")
		}
	}
	return images
}

// drawRules returns rules that form a valid policy.
func drawRules(t *rapid.T) []testRule {
	tags := [][]string{
		{"any"}, {"untagged"}, {"v*"}, {"*1"}, {"beta*v*"}, {"v*", "beta"}, {"*"}, {"v1"}, {"zzz"}, {"v*", "prefix"}, {"x*", "prefix"},
	}
	types := []string{"imageCountMoreThan", "sinceImagePushed", "sinceImagePulled", "sinceImageTransitioned"}
	var rules []testRule
	for _, tags := range rapid.SliceOfNDistinct(rapid.SampledFrom(tags), 1, 6, func(tags []string) string { return fmt.Sprint(tags) }).Draw(t, "tags") {
		countType := rapid.SampledFrom(types).Draw(t, "type")
		unit := "days"
		if countType == "imageCountMoreThan" {
			unit = ""
		}
		rule := testRule{Priority: len(rules) + 1, Action: expire}
		if len(tags) == 2 && tags[1] == "prefix" {
			rule.Selection = selectionOf(countType, unit, 1, tags[:1])
			rule.Selection.Patterns, rule.Selection.Prefixes = nil, tags[:1]
		} else {
			rule.Selection = selectionOf(countType, unit, 1, tags)
		}
		rule.Selection.Number = rapid.IntRange(1, 8).Draw(t, "number")
		if countType != "sinceImageTransitioned" && rapid.IntRange(0, 4).Draw(t, "transition") == 0 {
			rule.Action = transition
		}
		if rule.Selection.TagStatus == "any" {
			rule.Priority = 1000
		}
		rules = append(rules, rule)
	}
	return rules
}

// parseRules is policyOf in a property.
func parseRules(t *rapid.T, rules []testRule) lifecycle.Policy {
	t.Helper()
	policy, err := lifecycle.ParseLocal(marshalRules(rules))
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

func TestPolicyAgreesWithANaiveEvaluator(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, images := drawRules(t), drawImages(t, true)
		got := parseRules(t, rules).Expired(images, policyNow)
		if diff := gocmp.Diff(naiveExpired(rules, images, policyNow), got); diff != "" {
			t.Fatalf("expired (-naive +got):\n%s", diff)
		}
	})
}

func TestOrderOfImagesDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy, images := parseRules(t, drawRules(t)), drawImages(t, true)
		shuffled := rapid.Permutation(images).Draw(t, "shuffled")
		if diff := gocmp.Diff(policy.Expired(images, policyNow), policy.Expired(shuffled, policyNow)); diff != "" {
			t.Fatalf("in another order:\n%s", diff)
		}
	})
}

func TestRulesTogetherExpireNoMoreThanEachAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, images := drawRules(t), drawImages(t, false)
		union := make(map[lifecycle.Expired]bool)
		for _, rule := range rules {
			for _, e := range parseRules(t, []testRule{rule}).Expired(images, policyNow) {
				union[e] = true
			}
		}
		for _, e := range parseRules(t, rules).Expired(images, policyNow) {
			if !union[e] {
				t.Fatalf("%v is not expired by rule %d alone", e, e.Rule)
			}
		}
	})
}

func TestRuleThatSelectsNothingChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, images := drawRules(t), drawImages(t, true)
		want := parseRules(t, rules).Expired(images, policyNow)
		for i := range rules {
			rules[i].Priority++
		}
		first := moreThan(1, "none-*")
		first.Priority = 1
		got := parseRules(t, append(rules, first)).Expired(images, policyNow)
		for i := range got {
			got[i].Rule--
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Fatalf("with another rule (-want +got):\n%s", diff)
		}
	})
}

func TestNothingMoreExpiresOnceExpiredImagesAreRemoved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy, images := parseRules(t, drawRules(t)), drawImages(t, true)
		gone := make(map[digest.Digest]bool)
		for _, e := range policy.Expired(images, policyNow) {
			gone[e.Digest] = true
		}
		left := slices.DeleteFunc(images, func(img lifecycle.Image) bool { return gone[img.Digest] })
		if again := policy.Expired(left, policyNow); len(again) != 0 {
			t.Fatalf("after the removal %v expire", again)
		}
	})
}

func TestExpiredImageStaysExpired(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy, images := parseRules(t, drawRules(t)), drawImages(t, true)
		for i := range images {
			if images[i].Pushed.After(policyNow) {
				images[i].Pushed = policyNow
			}
			if images[i].Activated.After(policyNow) {
				images[i].Activated = policyNow
			}
		}
		later := policy.Expired(images, ago(-drawAge(t, "later").Abs()))
		for _, e := range policy.Expired(images, policyNow) {
			if !slices.Contains(later, e) {
				t.Fatalf("%v is not in %v later", e, later)
			}
		}
	})
}
