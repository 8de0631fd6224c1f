package fill

import (
	"cmp"
	"context"
	"io"
)

// Source is a place that has a blob: a repository of an upstream. Two sources with the same
// Upstream and Repository are one.
type Source struct {
	Upstream, Repository string
	// Realm is shared by the sources whose clients may have what another of them brings. Empty
	// means that it is the Upstream.
	Realm string
	// Size is the blob's size in bytes by a verified manifest of the repository, or 0 if none
	// tells it. An answer that tells another size is not the blob.
	Size  int64
	Fetch Fetch
	// Local says that its bytes do not come from an upstream: they do not count as fetched. They come as
	// fast as a disk takes them, so that they are hashed, and written to the disk, while further ones come.
	Local bool
	// Member tells whether the repository is known to have the blob. Its clients get what
	// other realms have brought only then, or when the source has confirmed it. Nil means that
	// they always do.
	Member Member
}

func (s *Source) realm() string { return cmp.Or(s.Realm, s.Upstream) }

// isKnown reports whether the clients of a source may have what other realms have brought.
func (s *Source) isKnown() bool { return s.Member == nil || s.Member.IsKnown() }

// Member is a blob as one repository has it, or claims to. Its methods may be called from
// several goroutines at once.
type Member interface {
	// IsKnown reports whether the repository is known to have the blob. It does not ask the
	// source.
	IsKnown() bool
	// Prove returns nil if the repository is known to have the blob, which is complete on
	// disk. It asks the source if need be: see [Confirm].
	Prove(ctx context.Context) error
}

// Range is a stretch of a blob to ask for, in bytes.
type Range struct {
	Off, Len int64

	// Spare marks a connection that only makes a running fill faster. A source that
	// has none to spare returns an error rather than wait.
	Spare bool
	// Size is that of the whole blob in bytes if it is known, else 0. A source that can ask others
	// leaves one alone that tells another size.
	Size int64
}

// Content is an answer to a [Range].
type Content struct {
	// Body begins at the offset that was asked for. The caller of the [Fetch] closes
	// it. It may be a [Rationed] one.
	Body io.ReadCloser
	// Whole says that the source ignored the range: Body is the entire blob, from
	// offset 0.
	Whole bool
	// Size is that of the whole blob in bytes, or -1 if the source does not say: then
	// the [Source] must know it from a manifest.
	Size int64
}

// Rationed is a body that this node reads more slowly than its source could send.
type Rationed interface {
	io.ReadCloser
	// Turn is called before each Read, and waits until the body may be read, or until ctx
	// ends. waited says that it did not return at once. Only what Read waits for is the
	// source's time. An error ends the reading as an error of Read does.
	Turn(ctx context.Context) (waited bool, err error)
}

// Fetch opens a blob's content at an offset and says how large the whole is. It is the
// joint between the store and whatever has the bytes. It blocks until the first byte is
// near; the context ends both the call and the body. It is called from several goroutines
// at once. Errors that are fs.ErrNotExist or fs.ErrPermission are final, and so are those with
// a method Postponed() bool that returns true: the source must not be asked now, and what has
// arrived stays. After any other error the fill tries again.
type Fetch func(ctx context.Context, r Range) (Content, error)
