// Package redact takes secrets out of texts that people read: errors, and with them
// logs, the status, traces and the answers for clients.
//
// [Of] knows what a request was sent with, and so what its answer may repeat. Every
// text that an upstream wrote goes through it, where it becomes part of an error. A
// [Memory] extends this to what was sent before.
package redact
