package cache

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Range is a stretch of a blob to ask for.
type Range struct {
	Off, Len int64

	// Spare marks a connection that only makes a running fill faster. A
	// source that has none to spare returns an error rather than wait.
	Spare bool
}

// Content is an answer to a [Range].
type Content struct {
	// Body begins at the offset that was asked for. The caller of the [Fetch]
	// closes it.
	Body io.ReadCloser
	// Whole says that the source ignored the range: Body is the entire blob,
	// from offset 0.
	Whole bool
	// Size is that of the whole blob in bytes, or -1 where the source does not
	// say: then it must be known from a manifest.
	Size int64
}

// Fetch opens a blob's content at an offset and says how large the whole is.
// It is the joint between the store and whatever has the bytes. It blocks until
// the first byte is near; the context ends both the call and the body. It is
// called from several goroutines at once. Errors that are fs.ErrNotExist or
// fs.ErrPermission are final; after any other the store tries again.
type Fetch func(ctx context.Context, r Range) (Content, error)

var (
	errStalled  = errors.New("no byte arrived in time")
	errNoRanges = errors.New("the source ignores ranges")
	errTooShort = errors.New("the body ended early")
	errNoSize   = errors.New("neither the source nor a manifest tells the size")
)

// Retry bounds how a broken connection is resumed.
type Retry struct {
	// First and Later are how many connections in a row may bring nothing
	// before the fill gives up: First while it has no byte at all, when a
	// client still waits for its headers and could go elsewhere; Later
	// afterwards, when giving up would break bodies in their middle.
	// 0 means 3 and 8.
	First, Later int
	// Pause is the mean wait before the second try; it doubles up to MaxPause.
	// 0 means 100 ms and 5 s: three tries fit in half a second, eight in 20 s.
	Pause, MaxPause time.Duration
	// Stall is how long a connection may bring no byte. 0 means 15 s.
	Stall time.Duration
}

func (r Retry) withDefaults() Retry {
	setDefault(&r.First, 3)
	setDefault(&r.Later, 8)
	setDefault(&r.Pause, 100*time.Millisecond)
	setDefault(&r.MaxPause, 5*time.Second)
	setDefault(&r.Stall, 15*time.Second)
	return r
}

// stream reads [off,end) of a blob through as many connections as it takes. It
// belongs to one goroutine.
type stream struct {
	ctx   context.Context
	fetch Fetch
	retry Retry
	spare bool

	off, end int64
	moved    bool // the blob has bytes already: be patient

	// opened sees each answer before its body is read, and may move end or
	// refuse the answer. Its error ends the stream.
	opened func(Content) (end int64, err error)
	// resumed is called each time a connection is replaced.
	resumed func(cause error)

	body   io.ReadCloser
	conn   context.Context // of the current connection
	cancel context.CancelCauseFunc
	stall  *time.Timer // runs while a read waits
	tries  int         // connections in a row that brought nothing
	pauses *backoff.ExponentialBackOff
}

// Read returns at least one byte or an error; io.EOF at end. After any other
// error the stream is over.
func (s *stream) Read(p []byte) (int, error) {
	for s.off < s.end {
		if s.body == nil {
			if err := s.open(); err != nil {
				if err := s.again(err); err != nil {
					return 0, err
				}
				continue
			}
			if s.off >= s.end {
				break
			}
		}
		n, err := s.receive(p[:min(int64(len(p)), s.end-s.off)])
		if n > 0 {
			s.off += int64(n)
			s.tries, s.moved = 0, true
			if err != nil || s.off == s.end {
				s.hangUp()
			}
			return n, nil
		}
		s.hangUp()
		if err := s.again(err); err != nil {
			return 0, err
		}
	}
	return 0, io.EOF
}

// receive reads from the body and tells a stall from a break.
func (s *stream) receive(p []byte) (int, error) {
	s.stall.Reset(s.retry.Stall)
	n, err := s.body.Read(p)
	s.stall.Stop()
	switch {
	case err == io.EOF:
		err = errTooShort
	case err != nil && errors.Is(context.Cause(s.conn), errStalled):
		err = errStalled
	}
	return n, err
}

func (s *stream) open() error {
	ctx, cancel := context.WithCancelCause(s.ctx)
	content, err := s.fetch(ctx, Range{Off: s.off, Len: s.end - s.off, Spare: s.spare})
	if err != nil {
		cancel(nil)
		return err
	}
	s.body, s.conn, s.cancel = content.Body, ctx, cancel
	s.stall = time.AfterFunc(s.retry.Stall, func() { cancel(errStalled) })
	s.stall.Stop()
	end, err := s.opened(content)
	if err != nil {
		s.hangUp()
		return final{err}
	}
	s.end = end
	if content.Whole {
		if err := s.skip(s.off); err != nil {
			s.hangUp()
			return err
		}
	}
	return nil
}

// skip throws away what a source without ranges sends before the offset.
func (s *stream) skip(n int64) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for n > 0 {
		m, err := s.receive((*buf)[:min(n, int64(len(*buf)))])
		n -= int64(m)
		if err != nil && n > 0 {
			return err
		}
	}
	return nil
}

// again decides whether another connection is tried after err, and waits
// before it. It returns the error that ends the stream.
func (s *stream) again(err error) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	var fin final
	if errors.As(err, &fin) {
		return fin.error
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	s.tries++
	if s.spare && s.tries > 1 {
		return err // the others do the work
	}
	most := s.retry.First
	if s.moved {
		most = s.retry.Later
	}
	if s.tries >= most {
		return err
	}
	pause := s.pause(err)
	if pause > 2*s.retry.MaxPause {
		return err
	}
	s.resumed(err)
	return wait(s.ctx, pause)
}

// pause grows with each try that brought nothing, and is at least what the
// source asked for.
func (s *stream) pause(err error) time.Duration {
	if s.pauses == nil {
		s.pauses = &backoff.ExponentialBackOff{
			InitialInterval:     s.retry.Pause,
			RandomizationFactor: backoff.DefaultRandomizationFactor,
			Multiplier:          2,
			MaxInterval:         s.retry.MaxPause,
		}
	}
	if s.tries == 1 {
		s.pauses.Reset()
	}
	pause := s.pauses.NextBackOff()
	var asked interface{ RetryAfter() time.Duration }
	if errors.As(err, &asked) {
		pause = max(pause, asked.RetryAfter())
	}
	return pause
}

// hangUp ends the current connection, if there is one.
func (s *stream) hangUp() {
	if s.body == nil {
		return
	}
	s.stall.Stop()
	s.body.Close()
	s.cancel(nil)
	s.body = nil
}

// final marks an error after which another connection would not help.
type final struct{ error }

// wait pauses for d or until the context ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
