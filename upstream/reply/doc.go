// Package reply reads the answers of upstreams that are not what a request
// wanted: the status, the error document, Retry-After and S3's SlowDown become an
// [Error]. It also has the one error for an answer that does not come in time.
//
// It sends nothing, keeps nothing and has no locks.
package reply
