// Package probe takes a connection apart step by step: name, address, TLS, answer.
// "larder doctor" shows the steps. Nothing that it returns is a secret.
//
// Its one lock guards what the hooks of net/http record.
package probe
