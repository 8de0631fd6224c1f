// Package fill brings one blob from a source to a verified file, once, for all clients
// that ask for it meanwhile.
//
// The way of a cold blob:
//
//  1. [New] makes a [Fill]. Its owner, package blobs, runs it in a goroutine of its own and
//     gives each client a [Reader]. No client's departure ends the fill. A caller of
//     [Fill.Fetch] wants the blob on disk, and reads nothing: if there was no client, the fill
//     stops when the last such caller leaves.
//  2. Each client brings its [Source], and the fill uses one source at a time. If that is too
//     slow, silent, refuses or lies, another takes over where it stopped: see sources.go.
//  3. Fill.Run starts the first connection. Its first answer tells the size. Then
//     [Store.Reserve] reserves the disk space and creates the [Partial], and clients learn
//     the size.
//  4. Connections claim segments, fetch them by Range, and write them to the partial. A
//     large blob gets several connections. A client that waits at an offset far ahead
//     pulls the segment there to the front.
//  5. The bytes at the contiguous front are hashed while they are in a connection's buffer.
//     Fill.Run hashes the rest, and all of a local source, and compares the digest at the end.
//  6. If the digest matches, the last byte is released and [Store.Commit] makes the partial
//     a blob. If it does not, readers get [ErrMismatch] and [Store.Abandon] removes the
//     partial, as it does if the disk fails or the source refuses the blob. If the source
//     breaks off, the partial stays, to be resumed.
//
// A client whose own source is healthy gets no unverified bytes of another upstream: it waits
// for a moment whether the digest verifies them, then compares them with its own source
// (check.go). So a source that lies cuts its own clients alone.
//
// A fill has one state: opening until its size is published, then filling, then verified
// or failed. A source has one standing: see sources.go. A broken connection and a slow source
// are replaced as [Retry] says; that rule stands in retry.go alone. Time in which this node makes
// a body wait for its turn ([Rationed]) is not the source's. If the disk fails, readers go on from the source without the disk: see passThrough.
//
// # Locks
//
// Reader.mu, then Fill.mu, in this order. Partial.writing is taken alone. No I/O happens
// under Fill.mu; a reader reads its file under Reader.mu.
package fill
