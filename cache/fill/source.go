package fill

import (
	"context"
	"io"
)

// Source is a place that has a blob: a repository of an upstream. Two sources with the same
// Upstream and Repository are one.
type Source struct {
	Upstream, Repository string
	// Size is the blob's size in bytes by a verified manifest of the repository, or 0 if none
	// tells it. An answer that tells another size is not the blob.
	Size  int64
	Fetch Fetch
}

// Range is a stretch of a blob to ask for, in bytes.
type Range struct {
	Off, Len int64

	// Spare marks a connection that only makes a running fill faster. A source that
	// has none to spare returns an error rather than wait.
	Spare bool
}

// Content is an answer to a [Range].
type Content struct {
	// Body begins at the offset that was asked for. The caller of the [Fetch] closes
	// it.
	Body io.ReadCloser
	// Whole says that the source ignored the range: Body is the entire blob, from
	// offset 0.
	Whole bool
	// Size is that of the whole blob in bytes, or -1 if the source does not say: then
	// the [Source] must know it from a manifest.
	Size int64
}

// Fetch opens a blob's content at an offset and says how large the whole is. It is the
// joint between the store and whatever has the bytes. It blocks until the first byte is
// near; the context ends both the call and the body. It is called from several goroutines
// at once. Errors that are fs.ErrNotExist or fs.ErrPermission are final; after any other
// the fill tries again.
type Fetch func(ctx context.Context, r Range) (Content, error)
