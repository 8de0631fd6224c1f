package fill

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
)

const (
	// proofLen is how many bytes a source must send to prove that it has a blob. They are
	// compared with those in the cache: nobody guesses so many.
	proofLen = 64
	// proofSpan is where they are from: the first bytes of a layer are easier to guess than
	// those in its middle, and a source that ignores ranges sends all before them.
	proofSpan = 64 << 10
)

// ErrUnproven says that a source does not have the blob, or not the same one, while its
// repository claims to. It is fs.ErrNotExist.
var ErrUnproven = fmt.Errorf("the upstream does not confirm that the repository has this blob: %w", fs.ErrNotExist)

// Confirm asks a source for a few bytes of a blob from a random place near its beginning. It
// returns nil if they are those of content, and the source has the blob in the same size. The
// error is one of the source, or [ErrUnproven].
func Confirm(ctx context.Context, source Source, content io.ReaderAt, size int64, retry Retry) error {
	n := min(size, proofLen)
	off := rand.Int64N(min(size, proofSpan) - n + 1)
	s := &stream{ctx: ctx, fetch: source.Fetch, tries: tries{retry: retry.withDefaults()}, off: off, end: off + n, size: size}
	defer s.hangUp()
	if err := s.begin(); err != nil {
		return unproven(err)
	}
	if s.answer.Size < 0 && source.Size != size {
		return fmt.Errorf("%w: it does not tell its size", ErrUnproven)
	}
	sent, want := make([]byte, n), make([]byte, n)
	if _, err := io.ReadFull(s, sent); err != nil {
		return unproven(err)
	}
	if _, err := content.ReadAt(want, off); err != nil {
		return DiskError{err}
	}
	if !bytes.Equal(sent, want) {
		return fmt.Errorf("%w: it sends another one", ErrUnproven)
	}
	return nil
}

// unproven is the error of a source that was asked to confirm a blob.
func unproven(err error) error {
	if contradicts(err) {
		return fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	return err
}
