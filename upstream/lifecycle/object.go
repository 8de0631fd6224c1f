package lifecycle

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// reader reads JSON and collects the mistakes in it.
type reader struct {
	mistakes Mistakes
	lenient  bool // see object
}

func (r *reader) mistake(key, format string, args ...any) {
	r.mistakes = append(r.mistakes, Mistake{key, fmt.Sprintf(format, args...)})
}

// object reads doc, which must be valid JSON, into the targets by their keys. It
// returns the keys that it read, and whether there was no mistake. Unlike
// encoding/json it rejects null, a key given twice, and a key in other case. A lenient
// reader takes null for an absent key, and 1.0 for an integer.
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
		case r.lenient && string(value) == "null":
			continue
		case string(value) == "null" || r.unmarshal(value, target) != nil:
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

func (r *reader) unmarshal(value json.RawMessage, target any) error {
	err := json.Unmarshal(value, target)
	if n, ok := target.(*int); ok && err != nil && r.lenient {
		var f float64
		if json.Unmarshal(value, &f) != nil || f != math.Trunc(f) || math.Abs(f) > maxInteger {
			return err
		}
		*n = int(f)
		return nil
	}
	return err
}

// maxInteger bounds integers that are written as floating-point numbers. All below it
// are exact.
const maxInteger = 1 << 52

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
