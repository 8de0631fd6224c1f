package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/larder-registry/larder/upstream/lifecycle"
)

const rulesWanted = "a list of rules as in ECR's lifecycle policies"

// The bounds of rules as JSON. ECR accepts less; aliases of aliases must not grow
// beyond this.
const (
	maxRules      = 64 << 10 // bytes
	maxRulesDepth = 8
)

var errRulesSize = errors.New("expected " + rulesWanted + ", got something far larger or deeper")

// decodeRules stores a list of lifecycle rules, in the form of ECR's JSON but
// written as YAML. The key ends in ".rules".
func decodeRules(r *report, key string, at place, node *yaml.Node, to *lifecycle.Policy) {
	if node.Kind != yaml.SequenceNode {
		r.add(at, key, mismatch(rulesWanted, node).Error())
		return
	}
	w := rulesWriter{report: r, file: at.file}
	w.text = append(w.text, `{"rules":`...)
	w.value(key, node, 0)
	w.text = append(w.text, '}')
	switch {
	case w.failed:
		r.failed[key] = true
		return
	case w.large:
		r.add(at, key, errRulesSize.Error())
		return
	}
	policy, err := lifecycle.ParseLocal(w.text)
	var mistakes lifecycle.Mistakes
	errors.As(err, &mistakes)
	section := strings.TrimSuffix(key, ".rules")
	for _, m := range mistakes {
		below := cmp.Or(m.Key, "rules")
		r.add(r.where(join(section, below)), join(section, keyName(below)), m.Problem)
	}
	*to = policy
}

// rulesWriter writes YAML as JSON. It keeps the order of keys and keys that are
// given twice, so that the parser of the rules finds them, and records the place
// of each key in the report.
type rulesWriter struct {
	report *report
	file   string
	text   []byte
	large  bool // it is beyond the bounds, and text is incomplete
	failed bool // a mistake was reported, and text is incomplete
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
			w.report.places[below] = place{w.file, item.Line}
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
				w.report.add(here, key, "expected a plain key, got "+describe(name))
				w.failed = true
				return
			}
			w.json(name.Value)
			w.text = append(w.text, ':')
			below := join(key, name.Value)
			w.report.places[below] = here
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

// scalar writes numbers, truth values and null as such, and everything else as
// text: what YAML reads as a date may be a tag.
func (w *rulesWriter) scalar(node *yaml.Node) {
	var v any
	switch node.ShortTag() {
	case "!!int", "!!float", "!!bool", "!!null":
		if node.Decode(&v) == nil {
			if raw, err := json.Marshal(v); err == nil { // .nan is an error
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
