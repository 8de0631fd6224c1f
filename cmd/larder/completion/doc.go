// Package completion writes scripts with which shells complete larder's command line: commands, flags, the
// values that a flag knows, and files. It is pure.
package completion
