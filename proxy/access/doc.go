// Package access decides which clients may have what an upstream has. The upstream decides, by
// the client's own credential; the package remembers what it said.
//
//   - request.go: a client asks for a token, with its credential or without one. [ParseRequest]
//     reads the forms that clients send.
//   - token.go: a [Gate] answers with a random token, which stands for the credential and for
//     some repositories.
//   - decision.go: [Gate.Decide] says whether the upstream lets a credential pull from a
//     repository, from memory or by asking. A client that tries many wrong credentials is bounded
//     by package attempts.
//   - answers.go: what the upstreams said. list.go lists it, and forgets it on command.
//   - accepted.go: the credentials that the upstream has accepted last, for work that no client
//     waits for.
//   - key.go and file.go: what is remembered survives a restart, as keyed hashes.
//
// Secrets are in memory only: in tokens, and among the accepted credentials. A [Credential]
// shows no secret, however it is printed.
//
// # Goroutines and locks
//
// The package starts a goroutine for each question to an upstream, which the question's own
// timeout ends. [Gate.Run] is the caller's. Gate.mu guards the answers and the
// accepted credentials, and is not locked during I/O. Gate.file serializes writes of the file.
package access
