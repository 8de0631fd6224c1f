package proxy

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Documents are manifests and lists, which are read into memory. Nearly all have a few
// KiB. The bounds are for large ones, so that many of them at once do not take the memory
// of the whole process.
const (
	// smallDocument is the size, in bytes, up to which a document is not counted.
	smallDocument = 64 << 10
	// maxReading bounds the documents that are being read or sent, in bytes: eight of the
	// largest, so that a slow upstream does not hold up those of others at once.
	maxReading = 32 << 20
	// decodingFactor is how many times its own size a document takes while it is decoded:
	// a manifest of 44,000 layers was measured with ten.
	decodingFactor = 11
	// maxDecoding bounds what decoding takes, in bytes. It is enough for the largest
	// document, and with maxReading leaves a part of the 128 MiB that the chart gives.
	maxDecoding = 48 << 20
)

// memory bounds the memory that large documents take. It is safe for concurrent use.
type memory struct {
	reading, decoding *semaphore.Weighted
}

func newMemory() memory {
	return memory{semaphore.NewWeighted(maxReading), semaphore.NewWeighted(maxDecoding)}
}

// share returns the share of one document, which is empty. The caller releases it.
func (m memory) share() *share { return &share{of: m} }

// share is the memory that one document takes. What is read is acquired before what is
// decoded, and nothing is acquired after that: so no two documents wait for each other. It is
// safe for concurrent use.
type share struct {
	of memory

	mu                sync.Mutex // guards what follows
	reading, decoding int64
}

// read waits until a document of a size may be read. It may be called again, when the
// document is read anew.
func (s *share) read(ctx context.Context, size int64) error {
	s.release() // of an attempt that has failed
	if size <= smallDocument {
		return nil
	}
	return s.acquire(ctx, s.of.reading, &s.reading, size, maxReading)
}

// decode waits until a document that was read may be decoded.
func (s *share) decode(ctx context.Context, size int) error {
	if size <= smallDocument {
		return nil
	}
	return s.acquire(ctx, s.of.decoding, &s.decoding, int64(size)*decodingFactor, maxDecoding)
}

func (s *share) acquire(ctx context.Context, from *semaphore.Weighted, taken *int64, n, most int64) error {
	n = min(n, most)
	if err := from.Acquire(ctx, n); err != nil {
		return fmt.Errorf("wait for memory, of which other large manifests and lists take all: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	*taken += n
	return nil
}

// decoded gives back what decoding took.
func (s *share) decoded() {
	s.mu.Lock()
	n := s.decoding
	s.decoding = 0
	s.mu.Unlock()
	s.of.decoding.Release(n)
}

// release gives everything back. It may be called more than once.
func (s *share) release() {
	s.decoded()
	s.mu.Lock()
	n := s.reading
	s.reading = 0
	s.mu.Unlock()
	s.of.reading.Release(n)
}
