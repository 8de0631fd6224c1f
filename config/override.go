package config

import (
	"slices"
	"strings"
)

// Override is a value from outside the file that replaces the value in the file.
type Override struct {
	// Key is the key in the configuration, such as cache.dir. Only keys with one
	// plain value outside of lists can be overridden.
	Key string
	// Value is the value as text. An empty value means none for keys that can have
	// none (admin, default_upstream), and is a mistake for the others.
	Value string
	// Source names the value in mistakes, such as --cache-dir or LARDER_CACHE_DIR.
	Source string
	// Default says that the value counts only if nothing else gives one.
	Default bool
}

// envPrefix begins the names of Larder's environment variables.
const envPrefix = "LARDER_"

// Env returns an override for each of Larder's variables in environ, whose
// entries have the form of [os.Environ], in the same order. The variable for a
// key is its name in upper case after LARDER_, with "_" for each dot:
// LARDER_CACHE_DIR for cache.dir. LARDER_ZONE is for peers.zone where the file does not have it: one file may
// serve the nodes of all zones.
//
// A LARDER_ variable without a key becomes an override without a key, which
// [Load] reports. LARDER_CONFIG and LARDER_REQUIRE, which have other uses, and the
// variables that Kubernetes sets for Services named larder are ignored.
func Env(environ []string) []Override {
	keys := overridable()
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
		if name == "LARDER_ZONE" {
			o.Key, o.Default = "peers.zone", true
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

// unknownOverride returns the problem of an override with an unknown key.
func unknownOverride(o Override) string {
	keys := overridable()
	if o.Key != "" {
		return unknown("key", o.Key, keys)
	}
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = variable(key)
	}
	return unknown("variable", o.Source, names)
}

// overridable returns the keys that can be overridden, in the order of the file.
func overridable() []string {
	return plainKeys("", fields(new(Config), ""))
}
