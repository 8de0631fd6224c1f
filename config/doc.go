// Package config is Larder's configuration: its keys and their defaults, strict
// loading from YAML, environment variables and flags, and the rules that a
// configuration must keep before anything is started from it.
//
// Loading is strict, so that "larder check" finds a misspelt key before an outage
// does: unknown and repeated keys are mistakes. All mistakes of a configuration
// are reported together, each with its file, line and key.
//
// [Load] goes through a configuration in three steps. It decodes the file and the
// overrides into the fields of the schema, in which each key has a setter that
// stores valid values. Then it completes the defaults that depend on other keys.
// Last it checks what holds between keys. Every step adds its mistakes to one
// report.
package config
