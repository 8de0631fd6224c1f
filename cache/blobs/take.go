package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/fill"
)

// Take brings a blob of size bytes to disk from a reader, and returns when it is there, which
// may be without reading all of it: another fill may bring the same blob. r is not read after
// Take has returned. The error is fill.ErrMismatch if the content is not the blob's, the error
// of r, or the reason why the disk did not take it. The digest must be valid, and size positive.
func (s *Store) Take(ctx context.Context, d digest.Digest, size int64, r io.Reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	carried := fill.NewCarried(size)
	done := make(chan error, 1)
	go func() {
		defer carried.Close()
		_, err := s.Fetch(ctx, d, carried.Source())
		done <- err
	}()
	failed := carried.Feed(r)
	if failed != nil {
		cancel(failed)
	}
	if err := <-done; err != nil {
		if failed != nil && !errors.Is(err, fill.ErrMismatch) {
			return fmt.Errorf("read blob %s: %w", d, failed)
		}
		return err
	}
	return nil
}
