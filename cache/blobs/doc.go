// Package blobs has the files of blobs in the cache folder, within its bound. It opens a
// blob or starts the fill that brings it, reserves space, commits, evicts by least recent
// use, and checks what is at rest.
//
// The way of a request for a blob: [Store.Open] looks for a fill, then for the file, then
// starts a fill, which waits for a slot (slots.go) and resumes a partial download (open.go). The fill
// reserves space, which may evict (commit.go, evict.go). What it brought is committed or
// abandoned (commit.go). A blob for which no space can be had is passed through without a fill
// (open.go).
//
// # Locks
//
// In this order, where one is taken while another is held:
//
//  1. the lock of a digest (locks.go), while its files change, during I/O
//  2. Store.evicting, by the goroutine that evicts, during I/O; under it the lock of a digest
//     is tried, never awaited; then the locks of package pins
//  3. locks.mu, then slots.mu or that of tasks.Group; under it a fill and its span begin
//  4. evictions.mu, opened.mu, and the locks of packages disk and recency, under which no other is taken
//
// A fill holds neither of the first two while it fetches: its digest is in the table of
// fills, which excludes others.
package blobs
