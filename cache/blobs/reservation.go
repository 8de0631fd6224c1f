package blobs

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
)

// Reservation is disk space for blobs that are about to come: whatever brings one of them
// uses the space that is reserved for it. Its methods may be called from several goroutines
// at once.
type Reservation struct {
	store *Store
	left  *reserved
}

// NewReservation returns a Reservation of nothing. Its caller ends it with Close.
func (s *Store) NewReservation() *Reservation {
	return &Reservation{store: s, left: s.reserved.begin()}
}

// Add reserves so many bytes for each blob, and evicts for all of them if necessary. If they do
// not fit it reserves nothing; the error is ENOSPC.
func (r *Reservation) Add(ctx context.Context, sizes map[digest.Digest]int64) error {
	n := int64(0)
	for _, bytes := range sizes {
		n += bytes
	}
	if err := r.store.ReserveBytes(ctx, n); err != nil {
		return err
	}
	r.store.reserved.add(r.left, sizes)
	return nil
}

// Release gives back what is reserved for a blob and was not used.
func (r *Reservation) Release(d digest.Digest) {
	r.store.unreserve(r.store.reserved.takeFrom(r.left, d))
}

// Close gives back all that was not used.
func (r *Reservation) Close() { r.store.unreserve(r.store.reserved.end(r.left)) }

// unreserve gives back bytes of which none was written.
func (s *Store) unreserve(n int64) {
	s.Space.Confirm(n)
	s.Space.Release(n)
}

// reserveBlob reserves n bytes for the file of a blob: it uses what is reserved for the blob,
// and adds what is missing.
func (s *Store) reserveBlob(ctx context.Context, d digest.Digest, n int64) error {
	had := s.reserved.take(d)
	if had > n {
		s.unreserve(had - n)
		had = n
	}
	err := s.ReserveBytes(ctx, n-had) // also with 0: others may have filled the disk since
	if err != nil {
		s.unreserve(had)
	}
	return err
}

// CheckFits returns ENOSPC if n bytes do not fit, even if everything is evicted that may be.
func (s *Store) CheckFits(n int64) error {
	if err := s.Space.CheckFits(n); err != nil {
		return err
	}
	short, err := s.Space.Short(n)
	if err != nil {
		return err
	}
	evictable := s.evictable()
	if s.KeepAll {
		evictable = disk.Amount{}
	}
	if short.IsPositive() && !short.Within(evictable) {
		return disk.BoundError{Err: fmt.Errorf("%d bytes do not fit: %v are missing, and %v may be evicted: %w",
			n, short.AtLeastNone(), evictable, unix.ENOSPC)}
	}
	return nil
}
