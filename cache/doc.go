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
//   - fill: one blob's way from its sources to a verified file
//   - blobs: the files of blobs within the bound: open, commit, evict, scrub
//   - pins: which blobs the pins hold; catalog: what is in the cache, for people and rules
//   - counts: the counters; tasks: the goroutines
//
// # The way of a request
//
// The files that a request goes through, from ServeHTTP to the disk:
//
//   - A cold blob: proxy/proxy.go, pull.go and response.go; blob.go; blobs/open.go;
//     fill/fill.go, open.go, connection.go, verify.go and reader.go; blobs/commit.go. It opens
//     the blob or its fill, asks the source, learns the size, reserves space, copies and hashes,
//     verifies, and commits. Each of these files uses others that have one small idea, such as
//     blobs/slots.go and evict.go for room, and fill/answer.go, claim.go, partial.go, retry.go,
//     segments.go and sources.go.
//   - A hit on a blob: proxy/proxy.go, pull.go and response.go; blob.go; member.go, which knows
//     what each repository has; blobs/open.go.
//   - A tag: proxy/proxy.go, pull.go and response.go; tag.go, tag_record.go, and gone.go if the
//     upstream does not have it any more, cooldown.go if it has moved; manifest.go; member.go.
//   - A blob that another repository has brought: as a cold blob, and then member.go and
//     fill/confirm.go and check.go, which ask the repository's own source whether it has the blob.
//
// Images that do not come from their upstream: import.go brings the blobs, publish.go makes an
// image visible; hold.go keeps what is carried away.
//
// A use is noted in recency/list.go, in memory.
//
// # Goroutines and locks
//
// tasks.Group owns all goroutines but those of the index; [Store.Close] ends and awaits them:
// keepUp and keepSnapshots (upkeep.go), the background scrub, a goroutine for each fill and
// its connections, one for each question to an upstream, one for each manifest that waits
// for a fill of the same digest, and one for each blob that is checked after a read failed.
//
// Locks are taken in this order, where one is taken while another is held:
//
//  1. Store.expiring, during I/O
//  2. records.Index.saving, during I/O: reserving the space for a snapshot may evict
//  3. the lock of a digest in package blobs, during I/O
//  4. blobs.Store.evicting, during I/O; under it the lock of a digest is tried, never awaited
//  5. pins.Pins.changing, during I/O
//  6. Store.tagging, during I/O
//  7. Store.joining, during I/O
//  8. fill.Reader.mu, during I/O, then fill.Fill.mu
//  9. the other locks of package records, in the order that its documentation gives; while a
//     snapshot is written database.use is locked for reading, and locks from 3 on may
//     follow: only the closing and the repair of the index wait for it
//  10. pins.Pins.mu; the mutex of the table of digests in package blobs, then that of its slots
//     or that of tasks.Group
//  11. the locks of reservations in package blobs, of Import, of packages disk and recency
//     and of memory.go, under which no other is taken
package cache
