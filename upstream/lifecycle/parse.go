package lifecycle

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
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

// maxStoredLength bounds a policy that ECR stores, in bytes. It leaves ECR room to
// raise its own limit.
const maxStoredLength = 1 << 20

// Parse reads a policy that ECR stores, so that ECR has accepted it. A rule that is
// not understood acts on nothing, and protects from later rules all images that it
// might select; [Policy.NotUnderstood] tells about it. An error is a [Mistakes]: the
// text is not a policy at all.
func Parse(text []byte) (Policy, error) {
	return (&parser{reader: reader{lenient: true}}).parse(text)
}

// ParseLocal reads a policy in ECR's form that an operator wrote for the cache. It
// accepts what ECR documents, and one thing more: a rule by sinceImagePulled may
// expire images, where ECR's can only move them to the archive. A cache has no
// archive, and knows best what was pulled through it. An error is a [Mistakes].
func ParseLocal(text []byte) (Policy, error) {
	return new(parser).parse(text)
}

// parser reads one policy: one that ECR stores if it is lenient, and else a local
// one.
type parser struct{ reader }

func (p *parser) parse(text []byte) (Policy, error) {
	var doc json.RawMessage
	if n := utf8.RuneCount(text); n > maxPolicyLength && !p.lenient {
		p.mistake("", "%d characters, more than the %d that ECR accepts", n, maxPolicyLength)
	} else if len(text) > maxStoredLength {
		p.mistake("", "%d bytes, more than the %d that are read", len(text), maxStoredLength)
	} else if err := json.Unmarshal(text, &doc); err != nil {
		p.mistake("", "%v", err)
	}
	if len(p.mistakes) > 0 {
		return Policy{}, p.mistakes
	}
	rules, ok := p.policy(doc)
	if len(p.mistakes) == 0 && !p.lenient {
		p.compare(rules)
	}
	if !ok || len(p.mistakes) > 0 && !p.lenient {
		return Policy{}, p.mistakes
	}
	slices.SortStableFunc(rules, func(a, b rule) int { return cmp.Compare(a.priority, b.priority) })
	return Policy{rules: rules, notUnderstood: p.mistakes}, nil
}

// policy reads the rules, and reports whether there is a list of them.
func (p *parser) policy(doc json.RawMessage) (rules []rule, ok bool) {
	var raw []json.RawMessage
	if read, _ := p.object("", doc, map[string]any{"rules": &raw}, "rules"); !read["rules"] {
		return nil, false
	}
	if n := len(raw); (n < 1 || n > maxPolicyRules) && !p.lenient {
		p.mistake("rules", "%d rules; a policy has 1 to %d", n, maxPolicyRules)
		return nil, false
	}
	rules = make([]rule, len(raw))
	for i := range raw {
		rules[i] = p.rule(rulePath(i), raw[i])
	}
	return rules, true
}

func rulePath(i int) string { return fmt.Sprintf("rules[%d]", i) }

// rule reads one rule. A rule with a mistake has the widest selection that it may
// mean, and does not expire.
func (p *parser) rule(path string, doc json.RawMessage) (r rule) {
	before := len(p.mistakes)
	r.selection = everything
	var description string
	var selection, action json.RawMessage
	read, _ := p.object(path, doc, map[string]any{
		"rulePriority": &r.priority,
		"description":  &description,
		"selection":    &selection,
		"action":       &action,
	}, "rulePriority", "selection", "action")
	switch {
	case !read["rulePriority"]:
		r.priority = math.MinInt // it may come before all others
	case r.priority < 1 && !p.lenient:
		p.mistake(path+".rulePriority", "%d is not positive", r.priority)
	}
	if read["selection"] {
		p.selection(path+".selection", selection, &r)
	}
	if read["action"] {
		p.action(path+".action", action, &r)
	}
	r.expires = r.expires && len(p.mistakes) == before
	return r
}

func (p *parser) selection(path string, doc json.RawMessage, r *rule) {
	var class, unit string
	var patterns, prefixes []string
	var status tagStatus
	read, ok := p.object(path, doc, map[string]any{
		"tagStatus":      &status,
		"tagPatternList": &patterns,
		"tagPrefixList":  &prefixes,
		"storageClass":   &class,
		"countType":      &r.count,
		"countUnit":      &unit,
		"countNumber":    &r.number,
	}, "tagStatus", "countType", "countNumber")
	if !ok && !p.lenient {
		return
	}
	if read["tagStatus"] && oneOf(&p.reader, path+".tagStatus", status, tagged, untagged, anyStatus) {
		r.selection.status = status
		if !read["tagPatternList"] {
			patterns = nil // what was read of a list with a mistake
		}
		if !read["tagPrefixList"] {
			prefixes = nil
		}
		p.tags(path, patterns, prefixes, &r.selection)
	}
	if read["countNumber"] && r.number < 1 {
		p.mistake(path+".countNumber", "%d is not positive", r.number)
	}
	if !read["countType"] || !oneOf(&p.reader, path+".countType", r.count,
		imageCountMoreThan, sinceImagePushed, sinceImagePulled, sinceImageTransitioned) {
		return
	}
	switch {
	case r.count == imageCountMoreThan && read["countUnit"] && !p.lenient:
		p.mistake(path+".countUnit", "not allowed in a rule by %s", r.count)
	case r.count != imageCountMoreThan && unit != "days":
		p.mistake(path+".countUnit", `a rule by %s has "days", not %q`, r.count, unit)
	}
	switch {
	case r.count == sinceImageTransitioned && class != "archive":
		p.mistake(path+".storageClass", `a rule by %s has "archive", not %q`, r.count, class)
	case r.count == sinceImageTransitioned:
		r.selection.stored = statusArchived
	case read["storageClass"] && class != "standard":
		p.mistake(path+".storageClass", `a rule by %s has "standard" or none, not %q`, r.count, class)
	default:
		r.selection.stored = statusActive
	}
}

// tags reads the two lists of patterns. A rule on tagged images has exactly one of
// them; an empty list counts as absent. After a mistake all images of the tag status
// are selected.
func (p *parser) tags(path string, patterns, prefixes []string, s *selection) {
	before := len(p.mistakes)
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
		p.mistake(path+".tagPrefixList", "not allowed together with tagPatternList")
	}
	for i, pattern := range patterns {
		key := fmt.Sprintf("%s.tagPatternList[%d]", path, i)
		if pattern == "" {
			p.mistake(key, "empty")
		}
		if strings.Count(pattern, "*") > maxWildcards && !p.lenient {
			p.mistake(key, "%q has more than %d wildcards", pattern, maxWildcards)
		}
		s.tags = append(s.tags, tagPattern{text: pattern})
	}
	for i, prefix := range prefixes {
		if prefix == "" && !p.lenient {
			p.mistake(fmt.Sprintf("%s.tagPrefixList[%d]", path, i), "empty")
		}
		s.tags = append(s.tags, prefixPattern(prefix))
	}
	if len(p.mistakes) > before {
		s.tags = nil
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
	case r.expires && r.count == sinceImagePulled && p.lenient:
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
