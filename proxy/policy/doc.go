// Package policy decides which images are served: a rule covers repositories and has conditions,
// such as a signature or an age, and an image is served only if all of them hold.
//
// It knows no registry and no cache. What a condition needs it gets through the interfaces that the
// package of the condition declares.
package policy
