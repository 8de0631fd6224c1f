package lifecycle

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

// Parse reads a policy in ECR's JSON form and accepts what ECR accepts. An error
// is a [Mistakes].
func Parse(text []byte) (Policy, error) {
	return new(parser).parse(text)
}

// ParseLocal is [Parse] for rules that an operator wrote for the cache. It accepts
// one thing more: a rule by sinceImagePulled may expire images, where ECR's can
// only move them to the archive. A cache has no archive, and knows best what was
// pulled through it.
func ParseLocal(text []byte) (Policy, error) {
	return (&parser{local: true}).parse(text)
}

// parser reads one policy.
type parser struct {
	reader
	local bool // see ParseLocal
}

func (p *parser) parse(text []byte) (Policy, error) {
	var doc json.RawMessage
	if n := utf8.RuneCount(text); n > maxPolicyLength {
		p.mistake("", "%d characters, more than the %d that ECR accepts", n, maxPolicyLength)
	} else if err := json.Unmarshal(text, &doc); err != nil {
		p.mistake("", "%v", err)
	}
	if len(p.mistakes) > 0 {
		return Policy{}, p.mistakes
	}
	rules := p.policy(doc)
	if len(p.mistakes) == 0 {
		p.compare(rules)
	}
	if len(p.mistakes) > 0 {
		return Policy{}, p.mistakes
	}
	slices.SortFunc(rules, func(a, b rule) int { return cmp.Compare(a.priority, b.priority) })
	return Policy{rules}, nil
}

func (p *parser) policy(doc json.RawMessage) []rule {
	var raw []json.RawMessage
	if read, _ := p.object("", doc, map[string]any{"rules": &raw}, "rules"); !read["rules"] {
		return nil
	}
	if n := len(raw); n < 1 || n > maxPolicyRules {
		p.mistake("rules", "%d rules; a policy has 1 to %d", n, maxPolicyRules)
		return nil
	}
	rules := make([]rule, len(raw))
	for i := range raw {
		rules[i] = p.rule(rulePath(i), raw[i])
	}
	return rules
}

func rulePath(i int) string { return fmt.Sprintf("rules[%d]", i) }

func (p *parser) rule(path string, doc json.RawMessage) (r rule) {
	var description string
	var selection, action json.RawMessage
	read, _ := p.object(path, doc, map[string]any{
		"rulePriority": &r.priority,
		"description":  &description,
		"selection":    &selection,
		"action":       &action,
	}, "rulePriority", "selection", "action")
	if read["rulePriority"] && r.priority < 1 {
		p.mistake(path+".rulePriority", "%d is not positive", r.priority)
	}
	if read["selection"] {
		p.selection(path+".selection", selection, &r)
	}
	if read["action"] {
		p.action(path+".action", action, &r)
	}
	return r
}

func (p *parser) selection(path string, doc json.RawMessage, r *rule) {
	var class, unit string
	var patterns, prefixes []string
	read, ok := p.object(path, doc, map[string]any{
		"tagStatus":      &r.selection.status,
		"tagPatternList": &patterns,
		"tagPrefixList":  &prefixes,
		"storageClass":   &class,
		"countType":      &r.count,
		"countUnit":      &unit,
		"countNumber":    &r.number,
	}, "tagStatus", "countType", "countNumber")
	if !ok {
		return
	}
	if oneOf(&p.reader, path+".tagStatus", r.selection.status, tagged, untagged, anyStatus) {
		p.tags(path, patterns, prefixes, &r.selection)
	}
	if r.number < 1 {
		p.mistake(path+".countNumber", "%d is not positive", r.number)
	}
	if !oneOf(&p.reader, path+".countType", r.count,
		imageCountMoreThan, sinceImagePushed, sinceImagePulled, sinceImageTransitioned) {
		return
	}
	switch {
	case r.count == imageCountMoreThan && read["countUnit"]:
		p.mistake(path+".countUnit", "not allowed in a rule by %s", r.count)
	case r.count != imageCountMoreThan && unit != "days":
		p.mistake(path+".countUnit", `a rule by %s has "days", not %q`, r.count, unit)
	}
	r.selection.stored = statusActive
	switch {
	case r.count == sinceImageTransitioned:
		r.selection.stored = statusArchived
		if class != "archive" {
			p.mistake(path+".storageClass", `a rule by %s has "archive", not %q`, r.count, class)
		}
	case read["storageClass"] && class != "standard":
		p.mistake(path+".storageClass", `a rule by %s has "standard" or none, not %q`, r.count, class)
	}
}

// tags reads the two lists of patterns. A rule on tagged images has exactly one of
// them; an empty list counts as absent.
func (p *parser) tags(path string, patterns, prefixes []string, s *selection) {
	switch given := len(patterns) + len(prefixes); {
	case s.status != tagged && given > 0:
		key := ".tagPatternList"
		if len(patterns) == 0 {
			key = ".tagPrefixList"
		}
		p.mistake(path+key, "only allowed with the tagStatus %q", tagged)
		return
	case s.status == tagged && given == 0:
		p.mistake(path+".tagPatternList", "missing; expected this or tagPrefixList")
	case len(patterns) > 0 && len(prefixes) > 0:
		p.mistake(path+".tagPrefixList", "not allowed together with TagPatternList")
	}
	for i, pattern := range patterns {
		key := fmt.Sprintf("%s.tagPatternList[%d]", path, i)
		if pattern == "" {
			p.mistake(key, "empty")
		}
		if strings.Count(pattern, "*") > maxWildcards {
			p.mistake(key, "%q has more than %d wildcards", pattern, maxWildcards)
		}
		s.tags = append(s.tags, tagPattern{text: pattern})
	}
	for i, prefix := range prefixes {
		if prefix == "" {
			p.mistake(fmt.Sprintf("%s.tagPrefixList[%d]", path, i), "empty")
		}
		s.tags = append(s.tags, prefixPattern(prefix))
	}
}

func (p *parser) action(path string, doc json.RawMessage, r *rule) {
	var kind, target string
	read, ok := p.object(path, doc, map[string]any{"type": &kind, "targetStorageClass": &target}, "type")
	if !ok || !oneOf(&p.reader, path+".type", kind, "expire", "transition") {
		return
	}
	r.expires = kind == "expire"
	switch {
	case r.expires && read["targetStorageClass"]:
		p.mistake(path+".targetStorageClass", "only allowed with the type transition")
	case !r.expires && target != "archive":
		p.mistake(path+".targetStorageClass", `a transition has "archive", not %q`, target)
	case r.expires && r.count == sinceImagePulled && !p.local:
		p.mistake(path+".type", "at ECR a rule by %s can only move images to the archive", r.count)
	case !r.expires && r.count == sinceImageTransitioned:
		p.mistake(path+".type", "a rule by %s can only expire", r.count)
	}
}

// compare finds mistakes between rules that are each right by themselves. Rules
// for active images and rules for archived ones are apart: within each group a
// rule on any image is the last, and no two rules select the same images (user
// guide, "Lifecycle policy evaluation rules").
func (p *parser) compare(rules []rule) {
	for i, r := range rules {
		for j, other := range rules {
			switch {
			case j < i && r.priority == other.priority:
				p.mistake(rulePath(i)+".rulePriority", "%d is also the priority of %s", r.priority, rulePath(j))
			case j < i && r.selection.equal(other.selection):
				p.mistake(rulePath(i)+".selection", "selects the same images as %s", rulePath(j))
			case r.selection.status == anyStatus && r.selection.stored == other.selection.stored &&
				r.priority < other.priority:
				p.mistake(rulePath(i)+".rulePriority", "%d is below the priority of %s; a rule on any image has the highest",
					r.priority, rulePath(j))
			}
		}
	}
}
