package upstream

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// ECR's limits of a policy (user guide, "Amazon ECR service quotas", and API
// reference, PutLifecyclePolicy).
const (
	maxPolicyLength = 30_720 // characters
	maxPolicyRules  = 50
	maxWildcards    = 4 // in a tag pattern
)

// ParseLifecyclePolicy reads a policy in ECR's JSON form, and takes what ECR
// takes. An error is [PolicyMistakes].
func ParseLifecyclePolicy(text []byte) (LifecyclePolicy, error) {
	return new(policyReader).parse(text)
}

// ParseLocalPolicy is ParseLifecyclePolicy for rules that somebody wrote for a
// cache. It takes one thing more: a rule by sinceImagePulled may expire images,
// where ECR's only move them to the archive. A cache has no archive, and its
// pulls are what it knows best.
func ParseLocalPolicy(text []byte) (LifecyclePolicy, error) {
	return (&policyReader{local: true}).parse(text)
}

func (r *policyReader) parse(text []byte) (LifecyclePolicy, error) {
	var doc json.RawMessage
	if n := utf8.RuneCount(text); n > maxPolicyLength {
		r.mistake("", "%d characters, more than the %d that ECR takes", n, maxPolicyLength)
	} else if err := json.Unmarshal(text, &doc); err != nil {
		r.mistake("", "%v", err)
	}
	if len(r.mistakes) > 0 {
		return LifecyclePolicy{}, r.mistakes
	}
	rules := r.policy(doc)
	if len(r.mistakes) == 0 {
		r.together(rules)
	}
	if len(r.mistakes) > 0 {
		return LifecyclePolicy{}, r.mistakes
	}
	slices.SortFunc(rules, func(a, b lifecycleRule) int { return cmp.Compare(a.priority, b.priority) })
	return LifecyclePolicy{rules}, nil
}

func (r *policyReader) policy(doc json.RawMessage) []lifecycleRule {
	var raw []json.RawMessage
	if read, _ := r.object("", doc, map[string]any{"rules": &raw}, "rules"); !read["rules"] {
		return nil
	}
	if n := len(raw); n < 1 || n > maxPolicyRules {
		r.mistake("rules", "%d of them; a policy has 1 to %d", n, maxPolicyRules)
		return nil
	}
	rules := make([]lifecycleRule, len(raw))
	for i := range raw {
		rules[i] = r.rule(rulePath(i), raw[i])
	}
	return rules
}

func rulePath(i int) string { return fmt.Sprintf("rules[%d]", i) }

func (r *policyReader) rule(path string, doc json.RawMessage) lifecycleRule {
	var rule lifecycleRule
	var description string
	var selection, action json.RawMessage
	read, _ := r.object(path, doc, map[string]any{
		"rulePriority": &rule.priority,
		"description":  &description,
		"selection":    &selection,
		"action":       &action,
	}, "rulePriority", "selection", "action")
	if read["rulePriority"] && rule.priority < 1 {
		r.mistake(path+".rulePriority", "%d is not positive", rule.priority)
	}
	if read["selection"] {
		r.selection(path+".selection", selection, &rule)
	}
	if read["action"] {
		r.action(path+".action", action, &rule)
	}
	return rule
}

func (r *policyReader) selection(path string, doc json.RawMessage, rule *lifecycleRule) {
	var class, unit string
	var patterns, prefixes []string
	read, ok := r.object(path, doc, map[string]any{
		"tagStatus":      &rule.selection.status,
		"tagPatternList": &patterns,
		"tagPrefixList":  &prefixes,
		"storageClass":   &class,
		"countType":      &rule.count,
		"countUnit":      &unit,
		"countNumber":    &rule.number,
	}, "tagStatus", "countType", "countNumber")
	if !ok {
		return
	}
	if oneOf(r, path+".tagStatus", rule.selection.status, tagged, untagged, anyStatus) {
		r.tags(path, patterns, prefixes, &rule.selection)
	}
	if rule.number < 1 {
		r.mistake(path+".countNumber", "%d is not positive", rule.number)
	}
	if !oneOf(r, path+".countType", rule.count,
		imageCountMoreThan, sinceImagePushed, sinceImagePulled, sinceImageTransitioned) {
		return
	}
	switch {
	case rule.count == imageCountMoreThan && read["countUnit"]:
		r.mistake(path+".countUnit", "a rule by %s has none", rule.count)
	case rule.count != imageCountMoreThan && unit != "days":
		r.mistake(path+".countUnit", `a rule by %s has "days", not %q`, rule.count, unit)
	}
	rule.selection.stored = statusActive
	switch {
	case rule.count == sinceImageTransitioned:
		rule.selection.stored = statusArchived
		if class != "archive" {
			r.mistake(path+".storageClass", `a rule by %s has "archive", not %q`, rule.count, class)
		}
	case read["storageClass"] && class != "standard":
		r.mistake(path+".storageClass", `a rule by %s has "standard" or none, not %q`, rule.count, class)
	}
}

// tags reads the two lists, of which a rule on tagged images has one. An empty
// list is none.
func (r *policyReader) tags(path string, patterns, prefixes []string, s *selection) {
	switch given := len(patterns) + len(prefixes); {
	case s.status != tagged && given > 0:
		key := ".tagPatternList"
		if len(patterns) == 0 {
			key = ".tagPrefixList"
		}
		r.mistake(path+key, "only a rule with the tagStatus %q has one", tagged)
		return
	case s.status == tagged && given == 0:
		r.mistake(path+".tagPatternList", "missing, and so is tagPrefixList")
	case len(patterns) > 0 && len(prefixes) > 0:
		r.mistake(path+".tagPrefixList", "a rule has this or tagPatternList, not both")
	}
	for i, pattern := range patterns {
		key := fmt.Sprintf("%s.tagPatternList[%d]", path, i)
		if pattern == "" {
			r.mistake(key, "empty")
		}
		if strings.Count(pattern, "*") > maxWildcards {
			r.mistake(key, "%q has more than %d wildcards", pattern, maxWildcards)
		}
		s.tags = append(s.tags, parseTagPattern(pattern))
	}
	for i, prefix := range prefixes {
		if prefix == "" {
			r.mistake(fmt.Sprintf("%s.tagPrefixList[%d]", path, i), "empty")
		}
		s.tags = append(s.tags, prefixPattern(prefix))
	}
}

func (r *policyReader) action(path string, doc json.RawMessage, rule *lifecycleRule) {
	var kind, target string
	read, ok := r.object(path, doc, map[string]any{"type": &kind, "targetStorageClass": &target}, "type")
	if !ok || !oneOf(r, path+".type", kind, "expire", "transition") {
		return
	}
	rule.expires = kind == "expire"
	switch {
	case rule.expires && read["targetStorageClass"]:
		r.mistake(path+".targetStorageClass", "only a transition has one")
	case !rule.expires && target != "archive":
		r.mistake(path+".targetStorageClass", `a transition has "archive", not %q`, target)
	case rule.expires && rule.count == sinceImagePulled && !r.local:
		r.mistake(path+".type", "at ECR a rule by %s only moves images to the archive", rule.count)
	case !rule.expires && rule.count == sinceImageTransitioned:
		r.mistake(path+".type", "a rule by %s can only expire", rule.count)
	}
}

// together finds what is wrong between rules that are right by themselves.
// Standard and archived images have their rules apart: within each, a rule on
// any image is the last, and no two rules select the same (user guide,
// "Lifecycle policy evaluation rules").
func (r *policyReader) together(rules []lifecycleRule) {
	for i, rule := range rules {
		for j, other := range rules {
			switch {
			case j < i && rule.priority == other.priority:
				r.mistake(rulePath(i)+".rulePriority", "%d is that of %s too", rule.priority, rulePath(j))
			case j < i && rule.selection.equal(other.selection):
				r.mistake(rulePath(i)+".selection", "selects the same images as %s", rulePath(j))
			case rule.selection.status == anyStatus && rule.selection.stored == other.selection.stored &&
				rule.priority < other.priority:
				r.mistake(rulePath(i)+".rulePriority", "%d is below that of %s; a rule on any image has the highest",
					rule.priority, rulePath(j))
			}
		}
	}
}
