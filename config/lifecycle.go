package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// LocalRules are lifecycle rules for what the cache holds of some repositories,
// whatever their registry is.
type LocalRules struct {
	// Match is a pattern of <host>/<repository>, such as docker.io/library/*. Its
	// host is one of [Upstream.Host] or "*" for any, and the rest is a pattern as
	// in [Upstream.Allow].
	Match string
	// Rules is a JSON document, {"rules": […]}, in the form of ECR's lifecycle
	// policies. What its rules say is checked by who understands them: see
	// [RulesCheck].
	Rules string
}

// RulesCheck finds what is wrong with the rules of [LocalRules]. Of a mistake
// only Key, in the document, and Problem count.
type RulesCheck func(document []byte) Mistakes

// LocalRules returns which of Lifecycle is for a repository: the first that
// matches.
func (c *Config) LocalRules(host, repository string) (index int, ok bool) {
	for i, r := range c.Lifecycle {
		pattern, below, _ := strings.Cut(r.Match, "/")
		if hostMatches(pattern, strings.ToLower(host)) && matchRepository(below, repository) {
			return i, true
		}
	}
	return 0, false
}

func hostMatches(pattern, host string) bool {
	return pattern == "*" || pattern == host || isPattern(pattern) && matchHost(pattern, host)
}

func localMatch(to *string) func(*yaml.Node) error {
	return func(value *yaml.Node) error {
		const want = "<host>/<repository> with patterns, such as docker.io/library/*, or */* for all"
		s, err := text(value, want)
		if err != nil {
			return err
		}
		host, repository, _ := strings.Cut(s, "/")
		if host != "*" && !isHost(host) && !isHostPattern(host) || !isRepositoryPattern(repository) {
			return mismatch(want, value)
		}
		*to = strings.ToLower(host) + "/" + repository
		return nil
	}
}

// checkLifecycle checks local rules, with check where that is given.
func (l *loader) checkLifecycle(check RulesCheck) {
	for i, r := range l.config.Lifecycle {
		key := fmt.Sprintf("lifecycle[%d]", i)
		if l.failed[key] {
			continue
		}
		host, _, _ := strings.Cut(r.Match, "/")
		switch {
		case r.Match == "":
			l.reject(key+".match", "missing; expected the repositories that the rules are for, such as docker.io/library/*")
		case host != "*" && !isPattern(host) && !l.mayServe(host):
			l.reject(key+".match", fmt.Sprintf("expected a host that one of the upstreams serves, got %q", host))
		}
		switch {
		case r.Rules == "":
			l.reject(key+".rules", "missing; expected a list of rules as in ECR's lifecycle policies")
		case check != nil:
			for _, m := range check([]byte(r.Rules)) {
				below := cmp.Or(m.Key, "rules")
				l.report(l.where(join(key, below)), join(key, keyName(below)), m.Problem)
			}
		}
	}
}

// The bounds of rules as JSON: what ECR takes of a policy is smaller, and
// aliases of aliases must not grow beyond that.
const (
	maxRules      = 64 << 10 // bytes
	maxRulesDepth = 8
)

var errRulesSize = errors.New("expected a list of rules as in ECR's lifecycle policies, got something far larger or deeper")

// decodeRules stores a list as the one key of a JSON document. Where each value
// of it is, is recorded for those who look at the document later.
func (l *loader) decodeRules(key string, at place, node *yaml.Node, to *string) {
	if node.Kind != yaml.SequenceNode {
		l.report(at, key, mismatch("a list of rules as in ECR's lifecycle policies", node).Error())
		return
	}
	w := rulesWriter{loader: l, file: at.file}
	w.text = append(w.text, `{"rules":`...)
	w.value(key, node, 0)
	w.text = append(w.text, '}')
	switch {
	case w.failed:
		l.failed[key] = true
	case w.large:
		l.report(at, key, errRulesSize.Error())
	default:
		*to = string(w.text)
	}
}

// rulesWriter writes YAML as JSON, in its order and with keys that are given
// twice: who reads it finds them.
type rulesWriter struct {
	loader *loader
	file   string
	text   []byte
	large  bool // beyond the bounds; text is not complete
	failed bool // the same, and why is reported
}

func (w *rulesWriter) value(key string, node *yaml.Node, depth int) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if depth > maxRulesDepth || len(w.text) > maxRules {
		w.large = true
	}
	if w.large || w.failed {
		return
	}
	switch node.Kind {
	case yaml.SequenceNode:
		w.text = append(w.text, '[')
		for i, item := range node.Content {
			w.comma(i)
			below := fmt.Sprintf("%s[%d]", key, i)
			w.loader.places[below] = place{w.file, item.Line}
			w.value(below, item, depth+1)
		}
		w.text = append(w.text, ']')
	case yaml.MappingNode:
		w.text = append(w.text, '{')
		for i := 0; i+1 < len(node.Content); i += 2 {
			w.comma(i)
			name := node.Content[i]
			here := place{w.file, name.Line}
			if name.Kind != yaml.ScalarNode {
				w.loader.report(here, key, "expected a plain key, got "+describe(name))
				w.failed = true
				return
			}
			w.json(name.Value)
			w.text = append(w.text, ':')
			below := join(key, name.Value)
			w.loader.places[below] = here
			w.value(below, node.Content[i+1], depth+1)
		}
		w.text = append(w.text, '}')
	default:
		w.scalar(node)
	}
}

func (w *rulesWriter) comma(i int) {
	if i > 0 {
		w.text = append(w.text, ',')
	}
}

// scalar writes a number, a truth value or nothing as what it is, and all else
// as text: a date may be a tag.
func (w *rulesWriter) scalar(node *yaml.Node) {
	var v any
	switch node.ShortTag() {
	case "!!int", "!!float", "!!bool", "!!null":
		if node.Decode(&v) == nil {
			if raw, err := json.Marshal(v); err == nil { // not .nan
				w.text = append(w.text, raw...)
				return
			}
		}
	}
	w.json(node.Value)
}

func (w *rulesWriter) json(s string) {
	raw, _ := json.Marshal(s) // cannot fail
	w.text = append(w.text, raw...)
}
