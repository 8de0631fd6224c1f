// Package records is the index of a cache folder: what the files of blobs cannot
// tell. It keeps typed records of blobs, memberships, tags, pins, lifecycle
// verdicts and times of use in a Badger database, and it is the only package
// that imports Badger. FORMAT.md, in the folder above, describes the keys and
// the values.
//
// # The way of a call
//
// A method of [Index] makes the key of a record (keys.go) and reads or writes it
// in one transaction (database.go). [Open] finds a database that it can trust
// (open.go, check.go), or makes one from the snapshot (restore.go).
// [Index.Save] writes the snapshot (snapshot.go, encode.go); decode.go reads it.
//
// # Locks
//
// In this order, where one is taken while another is held:
//
//  1. Index.saving, for as long as a snapshot is written
//  2. Index.formatMu, while the format record is written
//  3. database.closing, for reading, while a transaction reads; for writing,
//     from Close on
//
// Functions of the caller run while locks are held: those given to the Each
// methods while closing is, and the one given to Save while saving and closing
// are. The documentation of these methods says what such a function may not call.
package records
