// Package cache is Larder's store: blobs and manifests on disk, and what files cannot tell:
// tags, which repository has what, pins.
//
// It does not know what a registry is. Bytes come from a [Fetch] and manifests from an [Ask],
// which the caller gives it. FORMAT.md describes the folder and what a crash leaves behind.
// A missing thing is errors.Is(err, fs.ErrNotExist) in all methods, a refusal is
// errors.Is(err, fs.ErrPermission).
//
// # Packages
//
// This package is the face. Each package below has one idea:
//
//   - disk: the folder: paths, changes, space and its bound, health
//   - records: the index; recency: the order of use; manifest: what documents name
//   - fill: one blob's way from a source to a verified file
//   - blobs: the files of blobs within the bound: open, commit, evict, scrub
//   - pins: which blobs the pins hold; catalog: what is in the cache, for people and rules
//   - counts: the counters; tasks: the goroutines
//
// # The way of a request
//
// The files that a request goes through, from ServeHTTP to the disk:
//
//   - A cold blob: proxy/proxy.go, pull.go and response.go; blob.go; blobs/open.go;
//     fill/fill.go, connection.go, verify.go and reader.go; blobs/commit.go. It opens the blob
//     or its fill, asks the source, learns the size, reserves space, copies and hashes,
//     verifies, and commits. Each of these files uses others that have one small idea, such as
//     fill/retry.go, fill/segments.go and blobs/evict.go.
//   - A hit on a blob: proxy/proxy.go, pull.go and response.go; blob.go; blobs/open.go.
//   - A tag: proxy/proxy.go, pull.go and response.go; tag.go; manifest.go; blob.go, which knows
//     the members of a repository.
//
// A use is noted in recency/list.go, in memory.
//
// # Goroutines and locks
//
// tasks.Group owns all goroutines; [Store.Close] ends and awaits them: keepUp and
// keepSnapshots (upkeep.go), the background scrub, a goroutine for each fill and its
// connections, and one for each question to an upstream.
//
// Locks are taken in this order, where one is taken while another is held:
//
//  1. Store.expiring, during I/O
//  2. the lock of a digest in package blobs, during I/O
//  3. blobs.Store.evicting, during I/O; under it the lock of a digest is tried, never awaited
//  4. pins.Pins.changing, during I/O, then pins.Pins.mu
//  5. fill.Reader.mu, then fill.Fill.mu
//  6. those of package records, in the order that its documentation gives
//  7. the mutex of the table of digests in package blobs, then that of tasks.Group
//  8. the locks of packages disk and recency, under which no other is taken
package cache
