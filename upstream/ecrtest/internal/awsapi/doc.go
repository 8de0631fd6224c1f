// Package awsapi holds what the fake's two AWS APIs, ECR and STS, have in common: it
// reads a call, says who signed it, and records it.
//
// [ReadCall] reads the body and the signature of a request. [Verifier.Verify]
// returns the principal that signed it for a region and a service. [Log] counts the
// calls.
package awsapi
