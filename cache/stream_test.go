package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"
)

// newStream reads all of the origin's blob.
func newStream(ctx context.Context, o *origin) *stream {
	size := int64(len(o.content))
	return &stream{
		ctx:     ctx,
		fetch:   o.fetch,
		retry:   Retry{}.withDefaults(),
		end:     size,
		opened:  func(Content) (int64, error) { return size, nil },
		resumed: func(error) {},
	}
}

func TestStreamGoesOnWhereAConnectionEnded(t *testing.T) {
	for name, plan := range map[string]func(n int, r Range) act{
		"broken":       func(int, Range) act { return act{cut: 300} },
		"stalled":      func(int, Range) act { return act{stall: 300} },
		"refused":      func(n int, _ Range) act { return act{cut: 300, err: []error{nil, errBroken}[n%2]} },
		"ended early":  func(int, Range) act { return act{short: 300} },
		"without news": func(n int, _ Range) act { return act{cut: 300, err: []error{nil, nil, io.EOF}[n%3]} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(2000, 1)
				o.plan = plan
				st := newStream(t.Context(), o)
				defer st.hangUp()
				got, err := io.ReadAll(st)
				if err != nil || !bytes.Equal(got, o.content) {
					t.Fatalf("got %d bytes, %v", len(got), err)
				}
				if n, most := o.total(); n != 2000 || most != 1 {
					t.Errorf("%d bytes were sent, one of them %d times", n, most)
				}
			})
		})
	}
}

func TestStreamNoticesAStallAfterTheBoundedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(1000, 1)
		o.plan = func(n int, _ Range) act { return []act{{stall: 10}, {}}[n] }
		st := newStream(t.Context(), o)
		defer st.hangUp()
		var cause error
		st.resumed = func(err error) { cause = err }
		begin := time.Now()
		if _, err := io.ReadAll(st); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(cause, errStalled) {
			t.Errorf("resumed because of %v", cause)
		}
		if took := time.Since(begin); took < 15*time.Second || took > 16*time.Second {
			t.Errorf("a stall of 15 s was noticed after %v", took)
		}
	})
}

func TestStreamSkipsWhatASourceWithoutRangesRepeats(t *testing.T) {
	o := newOrigin(2*chunkSize+10, 1)
	o.noRanges = true
	st := newStream(t.Context(), o)
	defer st.hangUp()
	st.off = chunkSize + 5
	got, err := io.ReadAll(st)
	if err != nil || !bytes.Equal(got, o.content[chunkSize+5:]) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
}

func TestStreamGivesUpWhenNothingComes(t *testing.T) {
	for _, c := range []struct {
		name  string
		set   func(*stream)
		tries int
	}{
		{"at the beginning", func(*stream) {}, 3},
		{"when the blob has bytes", func(st *stream) { st.moved = true }, 8},
		{"as a spare", func(st *stream) { st.spare, st.moved = true, true }, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(100, 1)
				o.plan = func(int, Range) act { return act{err: errBroken} }
				st := newStream(t.Context(), o)
				c.set(st)
				begin := time.Now()
				if _, err := st.Read(make([]byte, 10)); !errors.Is(err, errBroken) {
					t.Errorf("ended with %v", err)
				}
				if n := len(o.requests()); n != c.tries {
					t.Errorf("%d requests, want %d", n, c.tries)
				}
				if took := time.Since(begin); took > 40*time.Second {
					t.Errorf("gave up after %v", took)
				}
			})
		})
	}
}

func TestStreamEndsAtOnceWhereAnotherTryIsOfNoUse(t *testing.T) {
	for name, err := range map[string]error{
		"missing": fmt.Errorf("blob: %w", fs.ErrNotExist),
		"denied":  fmt.Errorf("blob: %w", fs.ErrPermission),
		"busy":    busyError(time.Minute),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin(100, 1)
				o.plan = func(int, Range) act { return act{err: err} }
				st := newStream(t.Context(), o)
				begin := time.Now()
				if _, got := st.Read(make([]byte, 10)); !errors.Is(got, err) {
					t.Errorf("ended with %v", got)
				}
				if n := len(o.requests()); n != 1 || time.Since(begin) > 0 {
					t.Errorf("%d requests in %v", n, time.Since(begin))
				}
			})
		})
	}
}

// busyError is a source that wants to be left alone for a while.
type busyError time.Duration

func (busyError) Error() string               { return "busy" }
func (e busyError) RetryAfter() time.Duration { return time.Duration(e) }

func TestStreamWaitsAsLongAsTheSourceAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(100, 1)
		o.plan = func(n int, _ Range) act { return []act{{err: busyError(7 * time.Second)}, {}}[n] }
		st := newStream(t.Context(), o)
		defer st.hangUp()
		begin := time.Now()
		if _, err := io.ReadAll(st); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 7*time.Second {
			t.Errorf("asked again after %v", took)
		}
	})
}

func TestStreamEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(100, 1)
		o.plan = func(int, Range) act { return act{err: errBroken} }
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		time.AfterFunc(10*time.Millisecond, func() { cancel(gone) })
		if _, err := newStream(ctx, o).Read(make([]byte, 10)); !errors.Is(err, gone) {
			t.Errorf("ended with %v", err)
		}
	})
}
