package config

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// mismatch is the error for a value that is not what a key wants.
func mismatch(want string, got *yaml.Node) error {
	return fmt.Errorf("expected %s, got %s", want, describe(got))
}

// describe returns a value as a mistake shows it, always on one line.
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
		return "something with an @" // a password may precede it
	default:
		return quote(node.Value)
	}
}

// kind returns what a value is without showing any of it: in the wrong place it may be a
// secret.
func kind(node *yaml.Node) string {
	switch {
	case node.Kind != yaml.ScalarNode || node.Value == "" || node.ShortTag() == "!!null":
		return describe(node)
	case node.ShortTag() == "!!int", node.ShortTag() == "!!float":
		return "a number"
	case node.ShortTag() == "!!bool":
		return "a truth value"
	default:
		return "a text"
	}
}

// keyName returns a key as a mistake shows it, always on one line. No real key has a colon or
// an @; what has one may be a user name with its password.
func keyName(key string) string {
	if strings.ContainsAny(key, ":@") {
		return "(a text with a colon or an @)"
	}
	odd := func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }
	if key == "" || strings.ContainsFunc(key, odd) {
		return quote(key)
	}
	return cut(key)
}

// maxShown bounds how much of a wrong value or key a mistake shows, in bytes.
const maxShown = 80

func quote(s string) string { return strconv.Quote(cut(s)) }

func cut(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}
