package fill

import (
	"context"
	"io"

	"github.com/larder-registry/larder/cache/tasks"
)

// stream reads a stretch of a blob of a known size, through as many answers of one source as
// that takes. It belongs to one goroutine.
type stream struct {
	ctx   context.Context
	fetch Fetch
	tries tries

	off, end int64
	size     int64   // of the blob
	answer   *answer // at off, or nil
}

// Read returns at least one byte or an error; io.EOF at the end. After any other error the
// stream is over.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for s.off < s.end {
		n, err := s.attempt(p)
		if n > 0 {
			s.off += int64(n)
			s.tries.progress()
			return n, nil
		}
		if err := s.again(err); err != nil {
			return 0, err
		}
	}
	s.hangUp()
	return 0, io.EOF
}

// begin returns when an answer has begun, or with the error after which the stream is over.
func (s *stream) begin() error {
	for {
		err := s.ask()
		if err == nil {
			return nil
		}
		if err := s.again(err); err != nil {
			return err
		}
	}
}

// again ends the open answer, and waits before the next one if there is to be one.
func (s *stream) again(err error) error {
	s.hangUp()
	pause, err := s.tries.again(s.ctx, err)
	if err != nil {
		return err
	}
	return tasks.Wait(s.ctx, pause)
}

// attempt reads from the open answer, or asks for one first.
func (s *stream) attempt(p []byte) (int, error) {
	if err := s.ask(); err != nil {
		return 0, err
	}
	return s.answer.Read(p[:min(int64(len(p)), s.end-s.off)])
}

// ask asks for an answer, unless one is open.
func (s *stream) ask() error {
	if s.answer == nil {
		a, err := ask(s.ctx, s.fetch, Range{Off: s.off, Len: s.end - s.off, Size: s.size}, s.tries.patience())
		if err != nil {
			return err
		}
		s.answer = a
		if a.Size >= 0 && a.Size != s.size {
			return finalError{errChanged}
		}
		return a.skipTo(s.off)
	}
	return nil
}

// hangUp ends the open answer, if there is one.
func (s *stream) hangUp() {
	if s.answer != nil {
		s.answer.close()
		s.answer = nil
	}
}
