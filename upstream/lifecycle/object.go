package lifecycle

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// reader reads JSON and collects the mistakes in it.
type reader struct {
	mistakes Mistakes
}

func (r *reader) mistake(key, format string, args ...any) {
	r.mistakes = append(r.mistakes, Mistake{key, fmt.Sprintf(format, args...)})
}

// object reads doc, which must be valid JSON, into the targets by their keys. It
// returns the keys that it read, and whether there was no mistake. Unlike
// encoding/json it rejects null, a key given twice, and a key in other case.
func (r *reader) object(path string, doc json.RawMessage, targets map[string]any, required ...string) (read map[string]bool, ok bool) {
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
			r.mistake(join(path, key), "unknown key")
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

// oneOf reports whether value is one of the allowed values; if not it records a
// mistake.
func oneOf[T ~string](r *reader, key string, value T, allowed ...T) bool {
	if slices.Contains(allowed, value) {
		return true
	}
	r.mistake(key, "%q is not one of %q", value, allowed)
	return false
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
