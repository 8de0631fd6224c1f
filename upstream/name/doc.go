// Package name parses the names of the registry world: hosts, repositories, tags,
// images, and patterns for them. It is the only place that does. What it accepts
// can become part of a URL, a path or a key without changing its meaning.
//
// Most values are strings in a checked form, so that they can be compared, stored
// and printed. Parsers take any input; the ones on the way of a request do not
// allocate. The package is pure: it does no I/O and keeps no state.
package name
