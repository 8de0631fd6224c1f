// Package policy decides which images are served: a rule covers repositories and has conditions,
// such as a signature or an age, and an image is served only if all of them hold.
//
// It knows no registry and no cache. What a condition needs it gets through the interfaces that the
// package of the condition declares, and what an image is through [Content].
//
// A decision is made once for an image and a rule, shared by all that ask at once, and remembered,
// for the next process too. It is made again when its time is over or the rule has changed. One that
// cannot be made again holds for as long as the rule says.
//
// # Goroutines and locks
//
// The package starts a goroutine for each decision that is made, which decideWithin bounds.
// [Policy.Run] is the caller's. Policy.mu guards the decisions and is not locked during I/O.
// Policy.file serializes writes of the file. Neither is locked while the other is.
package policy
