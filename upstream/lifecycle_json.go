package upstream

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// PolicyMistake is one thing that is wrong with a lifecycle policy.
type PolicyMistake struct {
	// Key is where it is, such as rules[1].selection.countUnit; "" if it is about
	// the whole.
	Key     string
	Problem string
}

// PolicyMistakes is all that is wrong with a lifecycle policy.
type PolicyMistakes []PolicyMistake

func (ms PolicyMistakes) Error() string {
	lines := make([]string, len(ms))
	for i, m := range ms {
		lines[i] = m.Problem
		if m.Key != "" {
			lines[i] = m.Key + ": " + m.Problem
		}
	}
	return "lifecycle policy: " + strings.Join(lines, "\n")
}

// policyReader collects mistakes.
type policyReader struct {
	local    bool // see ParseLocalPolicy
	mistakes PolicyMistakes
}

func (r *policyReader) mistake(key, format string, args ...any) {
	r.mistakes = append(r.mistakes, PolicyMistake{key, fmt.Sprintf(format, args...)})
}

// object reads doc, which is valid JSON, into the targets by their keys. It
// returns the keys that it read, and whether all is well. Unlike encoding/json
// by itself it takes no null, and no key twice or in other letters.
func (r *policyReader) object(path string, doc json.RawMessage, targets map[string]any, required ...string) (read map[string]bool, ok bool) {
	before := len(r.mistakes)
	dec := json.NewDecoder(bytes.NewReader(doc))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		r.mistake(cmp.Or(path, "document"), "not an object")
		return nil, false
	}
	seen := make(map[string]bool)
	read = make(map[string]bool)
	for dec.More() {
		var value json.RawMessage
		name, err := dec.Token()
		if err == nil {
			err = dec.Decode(&value)
		}
		if err != nil {
			r.mistake(cmp.Or(path, "document"), "%v", err)
			return read, false
		}
		key := fmt.Sprint(name)
		target, known := targets[key]
		switch {
		case !known:
			r.mistake(join(path, key), "there is no such key")
		case seen[key]:
			r.mistake(join(path, key), "given twice")
		case string(value) == "null" || json.Unmarshal(value, target) != nil:
			r.mistake(join(path, key), "not %s", kindOf(target))
		default:
			read[key] = true
		}
		seen[key] = true
	}
	for _, key := range required {
		if !seen[key] {
			r.mistake(join(path, key), "missing")
		}
	}
	return read, len(r.mistakes) == before
}

func join(path, key string) string { return strings.TrimPrefix(path+"."+key, ".") }

func kindOf(target any) string {
	switch target.(type) {
	case *int:
		return "an integer"
	case *[]string:
		return "a list of strings"
	case *[]json.RawMessage:
		return "a list"
	case *json.RawMessage:
		return "an object"
	default:
		return "a string"
	}
}

// oneOf tells whether value is one of those that are allowed.
func oneOf[T ~string](r *policyReader, key string, value T, allowed ...T) bool {
	if slices.Contains(allowed, value) {
		return true
	}
	r.mistake(key, "%q is not one of %q", value, allowed)
	return false
}
