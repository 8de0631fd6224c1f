package config

import (
	"slices"
	"strings"
)

// Override is a value from outside the file that takes the place of what the
// file says.
type Override struct {
	// Key is the key in the configuration, such as cache.dir. Only keys with one
	// plain value outside of lists can be overridden.
	Key string
	// Value is the value as text. Empty is a value: it means none where a key can
	// have none (admin, default_upstream), and is a mistake elsewhere.
	Value string
	// Source is what mistakes in the value are reported as, such as --cache-dir
	// or LARDER_CACHE_DIR.
	Source string
}

// envPrefix begins the names of the environment variables that are Larder's.
const envPrefix = "LARDER_"

// Env returns an override for each of Larder's variables in environ, whose
// entries have the form of [os.Environ], in the same order. The variable for a
// key is its name in upper case after LARDER_, with "_" for each dot:
// LARDER_CACHE_DIR for cache.dir.
//
// A LARDER_ variable for which there is no key yields an override without a
// key, which [Load] reports. Exempt are LARDER_CONFIG and LARDER_REQUIRE, which
// have other uses, and what Kubernetes sets for Services called larder.
func Env(environ []string) []Override {
	keys := plainKeys()
	var overrides []Override
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || name == "LARDER_CONFIG" || name == "LARDER_REQUIRE" || isServiceLink(name, value) {
			continue
		}
		o := Override{Value: value, Source: name}
		if i := slices.IndexFunc(keys, func(key string) bool { return variable(key) == name }); i >= 0 {
			o.Key = keys[i]
		}
		overrides = append(overrides, o)
	}
	return overrides
}

// variable returns the name of the environment variable for a key.
func variable(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// isServiceLink reports whether a variable is one of those that Kubernetes sets
// in every container of a namespace for each Service in it, as a Service named
// larder or larder-admin would: LARDER_SERVICE_HOST, LARDER_SERVICE_PORT_HTTP,
// LARDER_PORT=tcp://10.0.0.1:5000, LARDER_PORT_5000_TCP_ADDR. See
// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables.
func isServiceLink(name, value string) bool {
	if strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") {
		return true
	}
	if _, port, ok := strings.Cut(name, "_PORT_"); ok {
		return strings.Contains(port, "_TCP") || strings.Contains(port, "_UDP") || strings.Contains(port, "_SCTP")
	}
	return strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
}

// unknownOverride says what is wrong with an override whose key is not one.
func unknownOverride(o Override) string {
	keys := plainKeys()
	if o.Key != "" {
		return unknown("key", o.Key, keys)
	}
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = variable(key)
	}
	return unknown("variable", o.Source, names)
}

// plainKeys returns the keys that can be overridden, in the order of the file.
func plainKeys() []string {
	return plain("", fields(new(Config), ""))
}

func plain(section string, fs []field) []string {
	var keys []string
	for _, f := range fs {
		key := join(section, f.name)
		switch {
		case f.set != nil:
			keys = append(keys, key)
		case f.section != nil:
			keys = append(keys, plain(key, f.section())...)
		}
	}
	return keys
}
