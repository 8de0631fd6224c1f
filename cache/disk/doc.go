// Package disk is the cache folder on the file system: where each file is, how the
// folder is changed, how much space it takes, and whether the disk works.
//
//   - [Folder] owns the folder: its lock file, the paths of blobs, partial downloads,
//     the index and its snapshot. FORMAT.md describes them.
//   - [Steps] are the changes to the folder. Each one may fail, and a crash may come
//     between any two of them. Tests put themselves around them.
//   - [Space] keeps the folder within its bounds: bytes are reserved before they are
//     written.
//   - [Health] remembers whether the disk takes what the cache writes.
//
// The package knows no index and no upstream. Space.mu and Health.mu are leaf locks:
// no other lock is taken while one of them is locked.
package disk
