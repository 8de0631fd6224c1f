// Package cache is Larder's store: content-addressed blobs on disk, the fills
// that bring them there, and an index of what files cannot tell (tags, which
// repository holds what, media types).
//
// It does not know what a registry is. Bytes come from a [Fetch] and manifests
// from an [Ask], both handed in by the caller. FORMAT.md describes the folder
// and what a crash leaves behind.
//
// "Not there" is errors.Is(err, fs.ErrNotExist) throughout, "not allowed" is
// errors.Is(err, fs.ErrPermission).
package cache
