package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxItems bounds a list, so that aliases of lists in lists cannot grow a small
// file into a large configuration. No real configuration comes near it.
const maxItems = 1000

// decode stores node as the value of key and records where it was. Line is that
// of the key itself: what an alias stands for is elsewhere.
func (l *loader) decode(key string, at place, node *yaml.Node, f field) {
	l.places[key] = at
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch {
	case f.set != nil:
		if err := f.set(node); err != nil {
			l.report(at, key, err.Error())
		}
	case f.section != nil:
		l.decodeSection(key, at, node, f.section)
	case f.rules != nil:
		l.decodeRules(key, at, node, f.rules)
	default:
		l.decodeList(key, at, node, f.list)
	}
}

func (l *loader) decodeSection(key string, at place, node *yaml.Node, section func() []field) {
	if node.ShortTag() == "!!null" {
		return // a heading whose keys are all commented out
	}
	if node.Kind != yaml.MappingNode {
		l.report(at, key, mismatch("keys with values", node).Error())
		return
	}
	fs := section()
	first := make(map[string]int) // the line where each key was first given
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		here := place{file: at.file, line: name.Line}
		if name.Kind != yaml.ScalarNode {
			l.report(here, key, "expected a plain key, got "+describe(name))
			continue
		}
		below := join(key, keyName(name.Value))
		if line, ok := first[name.Value]; ok {
			l.report(here, below, fmt.Sprintf("given twice, first on line %d", line))
			continue
		}
		first[name.Value] = name.Line
		index := slices.IndexFunc(fs, func(f field) bool { return f.name == name.Value })
		if index < 0 {
			l.report(here, below, unknown("key", name.Value, names(fs)))
			continue
		}
		l.decode(below, here, value, fs[index])
	}
}

func (l *loader) decodeList(key string, at place, node *yaml.Node, list func(int) []field) {
	if node.Kind != yaml.SequenceNode {
		l.report(at, key, mismatch("a list", node).Error())
		return
	}
	if n := len(node.Content); n > maxItems {
		l.report(at, key, fmt.Sprintf("expected at most %d items, got %d", maxItems, n))
		return
	}
	for i, f := range list(len(node.Content)) {
		item := node.Content[i]
		l.decode(fmt.Sprintf("%s[%d]", key, i), place{file: at.file, line: item.Line}, item, f)
	}
}

// keyName returns a key as it is shown in a mistake, always on one line.
func keyName(name string) string {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }
	if name == "" || strings.ContainsFunc(name, odd) {
		return quote(name)
	}
	return cut(name)
}

func names(fs []field) []string {
	all := make([]string, len(fs))
	for i, f := range fs {
		all[i] = f.name
	}
	return all
}

// mismatch is the error for a value that is not what a key wants.
func mismatch(want string, got *yaml.Node) error {
	return fmt.Errorf("expected %s, got %s", want, describe(got))
}

// describe returns a value as it is shown in a mistake, always on one line.
func describe(node *yaml.Node) string {
	switch {
	case node.Kind == yaml.AliasNode:
		return "an alias"
	case node.Kind == yaml.MappingNode:
		return "keys with values"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	case node.ShortTag() == "!!null", node.ShortTag() == "!!str" && node.Value == "":
		return "nothing"
	case node.ShortTag() == "!!int", node.ShortTag() == "!!float":
		return "the number " + cut(node.Value)
	case node.ShortTag() == "!!bool":
		return "the truth value " + cut(node.Value)
	case strings.Contains(node.Value, "@"):
		return "something with an @" // which may follow a password
	default:
		return quote(node.Value)
	}
}

// maxShown bounds how much of a wrong value or key is repeated, in bytes.
const maxShown = 80

func quote(s string) string { return strconv.Quote(cut(s)) }

func cut(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}
