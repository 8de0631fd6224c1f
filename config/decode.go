package config

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// maxItems bounds a list, so that aliases of lists in lists cannot expand a small
// file into a large configuration. Real configurations are far smaller.
const maxItems = 1000

// decoder stores values in fields and reports the mistakes in them.
type decoder struct {
	*report
}

// decode stores node as the value of key. The place is that of the key itself: the
// value of an alias is elsewhere.
func (d decoder) decode(key string, at place, node *yaml.Node, f field) {
	d.places[key] = at
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch {
	case f.set != nil:
		if err := f.set(node); err != nil {
			d.add(at, key, err.Error())
		}
	case f.section != nil:
		d.decodeSection(key, at, node, f.section)
	case f.rules != nil:
		decodeRules(d.report, key, at, node, f.rules)
	default:
		d.decodeList(key, at, node, f.list)
	}
}

func (d decoder) decodeSection(key string, at place, node *yaml.Node, section func() []field) {
	if node.ShortTag() == "!!null" {
		return // all keys below a heading are commented out
	}
	if node.Kind != yaml.MappingNode {
		d.add(at, key, "expected keys with values, got "+kind(node))
		return
	}
	fields := section()
	first := make(map[string]int) // the line where each key was first given
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		here := place{file: at.file, line: name.Line}
		if name.Kind != yaml.ScalarNode {
			d.add(here, key, "expected a plain key, got "+describe(name))
			continue
		}
		below := join(key, keyName(name.Value))
		if line, ok := first[name.Value]; ok {
			d.add(here, below, fmt.Sprintf("given twice, first on line %d", line))
			continue
		}
		first[name.Value] = name.Line
		index := slices.IndexFunc(fields, func(f field) bool { return f.name == name.Value })
		if index < 0 {
			d.add(here, below, unknown("key", name.Value, names(fields)))
			continue
		}
		d.decode(below, here, value, fields[index])
	}
}

func (d decoder) decodeList(key string, at place, node *yaml.Node, list func(int) []field) {
	if node.Kind != yaml.SequenceNode {
		d.add(at, key, mismatch("a list", node).Error())
		return
	}
	if n := len(node.Content); n > maxItems {
		d.add(at, key, fmt.Sprintf("expected at most %d items, got %d", maxItems, n))
		return
	}
	for i, f := range list(len(node.Content)) {
		item := node.Content[i]
		d.decode(fmt.Sprintf("%s[%d]", key, i), place{file: at.file, line: item.Line}, item, f)
	}
}
