// Package records is the index of a cache folder: what the files of blobs cannot
// tell. It keeps typed records of blobs, memberships, tags, pins, lifecycle
// verdicts and times of use in a Badger database, and it is the only package
// that imports Badger. FORMAT.md, in the folder above, describes the keys and
// the values.
//
// # How a call works
//
// A method of [Index] makes the key of a record (keys.go) and reads or writes it
// in one transaction (database.go). The methods are in the files of their records:
// index.go for blobs, then members.go, tags.go, pending.go, referrers.go,
// verdicts.go, uses.go. [Open] finds a database whose files are whole
// (open.go, check.go), or makes one from the snapshot (restore.go).
// [Index.Save] writes the snapshot (snapshot.go, encode.go); decode.go reads it.
// [Index.Repair] replaces a database whose files were damaged while it was open
// (repair.go), which watch.go notices. [Index.Tidy] removes what nothing needs
// any more (tidy.go).
//
// # Locks
//
// In this order, where one is taken while another is held:
//
//  1. Index.saving, for as long as a snapshot is written
//  2. Index.formatMu, while the format record is written
//  3. subjects.mu, while all manifests are read
//  4. database.writing: methods that write lock it for reading, and Tidy locks it
//     for writing while it removes records
//  5. database.use: methods that use Badger lock it for reading, and those that
//     close or replace Badger lock it for writing
//  6. watch.mu, while the states of the files are compared
//
// Some methods call functions of their caller with these locks held:
//
//   - the Each methods: use
//   - Tidy: writing and use
//   - Save and Repair: saving and use
//
// The documentation of these methods says what such a function must not call.
package records
