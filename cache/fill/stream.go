package fill

import (
	"context"
	"io"

	"github.com/larder-registry/larder/cache/tasks"
)

// stream reads a blob of a known size from an offset to its end, through as many answers of
// the source as that takes. It belongs to one goroutine.
type stream struct {
	ctx   context.Context
	fetch Fetch
	tries tries

	off, size int64
	answer    *answer // at off, or nil
}

// Read returns at least one byte or an error; io.EOF at the end. After any other error the
// stream is over.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for s.off < s.size {
		n, err := s.attempt(p)
		if n > 0 {
			s.off += int64(n)
			s.tries.progress()
			return n, nil
		}
		s.hangUp()
		pause, err := s.tries.again(s.ctx, err)
		if err != nil {
			return 0, err
		}
		if err := tasks.Wait(s.ctx, pause); err != nil {
			return 0, err
		}
	}
	s.hangUp()
	return 0, io.EOF
}

// attempt reads from the open answer, or asks for one first.
func (s *stream) attempt(p []byte) (int, error) {
	if s.answer == nil {
		a, err := ask(s.ctx, s.fetch, Range{Off: s.off, Len: s.size - s.off}, s.tries.patience())
		if err != nil {
			return 0, err
		}
		s.answer = a
		if a.Size >= 0 && a.Size != s.size {
			return 0, finalError{errChanged}
		}
		if err := a.skipTo(s.off); err != nil {
			return 0, err
		}
	}
	return s.answer.Read(p[:min(int64(len(p)), s.size-s.off)])
}

// hangUp ends the open answer, if there is one.
func (s *stream) hangUp() {
	if s.answer != nil {
		s.answer.close()
		s.answer = nil
	}
}
