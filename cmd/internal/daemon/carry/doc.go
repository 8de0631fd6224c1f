// Package carry is the part of /api/v1 that exports images from the cache and imports them:
// what "larder export", "larder import" and "larder inventory" use. The commands read and
// write the files, with package bundle; this package has the store.
//
// # Sessions
//
// An export or an import is a session: a request whose answer goes on until the client leaves.
// The first lines of the answer tell the progress, and then an id. Other requests name the
// session by the id. What the session holds against eviction is let go when its request ends,
// so that nothing is held for a command that was killed.
package carry
