// Package bucket keeps what nodes have fetched from upstreams in an S3 bucket, as a tier between them and the
// upstreams. It knows no cache: [Source] is an upstream in which the bucket is asked first, and [Bucket.Run] puts
// there what the upstream has sent and the caller has verified.
//
// # Objects
//
// Each upstream has a folder of its own, so that nobody who may write content of one upstream reaches another:
//
//	<prefix>/<host>/blobs/sha256/<2 hex>/<hex>       a blob or a manifest, verified by whoever reads it
//	<prefix>/<host>/members/<repository>/@/<digest>  that a repository has one of them, sealed
//	<prefix>/<host>/tags/<repository>/@/<tag>        which manifest a tag named, and when, sealed
//
// A record that is sealed has an HMAC by the keys of the nodes. Without a key no records are written or read: then
// the bucket gives only what the caller knows the repository to have.
//
// # Trouble
//
// The bucket is given up for a request when its answer does not begin within [Patience], or its body is silent or
// slow; then the upstream is asked. A breaker leaves a bucket alone that fails. An object that turned out to be
// wrong is not asked for again.
//
// # Goroutines and locks
//
// Run has the goroutines that put objects, and ends them. The locks of memory and notes are each taken alone, and
// nothing is sent under them.
package bucket
