package config

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"unicode"

	"github.com/larder-registry/larder/upstream/lifecycle"
)

// Setting is a key of the configuration with the value that is in use.
type Setting struct {
	Key   string `json:"key"`   // such as cache.max_size, or upstreams[0].timeout
	Value string `json:"value"` // "" for none
}

// Effective returns all keys with the values that are in use, defaults included, in the order of the fields of [Config]. No
// secret is among them: a secret is a file whose name is here, and what could be one, such as the external ID of a role, is
// not shown.
func (c *Config) Effective() []Setting {
	var all []Setting
	whole := reflect.ValueOf(*c)
	for i := range whole.NumField() {
		if f := whole.Type().Field(i); f.Name != "Warnings" {
			all = settings(all, KeyOf(f.Name), whole.Field(i))
		}
	}
	return all
}

// hiddenKeys are those whose values are not shown.
var hiddenKeys = map[string]bool{"external_id": true}

// settings adds the keys at and below key.
func settings(all []Setting, key string, v reflect.Value) []Setting {
	if s, ok := v.Interface().(fmt.Stringer); ok && v.Kind() != reflect.Pointer {
		return append(all, Setting{key, s.String()})
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return all
		}
		return settings(all, key, v.Elem())
	case reflect.Struct:
		if _, ok := v.Interface().(lifecycle.Policy); ok {
			return append(all, Setting{strings.TrimSuffix(key, ".policy") + ".rules", "set"})
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				all = settings(all, key+"."+KeyOf(f.Name), v.Field(i))
			}
		}
		return all
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct && !hasText(v.Type().Elem()) {
			for i := range v.Len() {
				all = settings(all, fmt.Sprintf("%s[%d]", key, i), v.Index(i))
			}
			return all
		}
		texts := make([]string, v.Len())
		for i := range texts {
			texts[i] = fmt.Sprint(v.Index(i).Interface())
		}
		return append(all, Setting{key, strings.Join(texts, ", ")})
	}
	text := fmt.Sprint(v.Interface())
	if last := key[strings.LastIndexByte(key, '.')+1:]; hiddenKeys[last] && text != "" {
		text = "(not shown)"
	}
	if u, err := url.Parse(text); err == nil && u.User != nil {
		text = u.Redacted()
	}
	return append(all, Setting{key, text})
}

func hasText(t reflect.Type) bool { return t.Implements(reflect.TypeFor[fmt.Stringer]()) }

// KeyOf returns the key of a field of [Config]: default_upstream for DefaultUpstream, api_endpoint for APIEndpoint.
func KeyOf(field string) string {
	var key strings.Builder
	letters := []rune(field)
	for i, r := range letters {
		startsWord := i > 0 && unicode.IsUpper(r) && (unicode.IsLower(letters[i-1]) || i+1 < len(letters) && unicode.IsLower(letters[i+1]))
		if startsWord {
			key.WriteByte('_')
		}
		key.WriteRune(unicode.ToLower(r))
	}
	return key.String()
}
