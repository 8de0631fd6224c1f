package fill_test

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

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/fill/filltest"
)

// newStream returns a stream of all of the origin's blob.
func newStream(ctx context.Context, o *filltest.Origin) fill.Stream {
	return fill.NewStream(ctx, o.Fetch, int64(len(o.Content)), false, false)
}

func TestStreamContinuesWhereAConnectionEnded(t *testing.T) {
	for name, plan := range map[string]func(n int, r fill.Range) filltest.Act{
		"broken":  func(int, fill.Range) filltest.Act { return filltest.Act{Cut: 300} },
		"stalled": func(int, fill.Range) filltest.Act { return filltest.Act{Stall: 300} },
		"refused": func(n int, _ fill.Range) filltest.Act {
			return filltest.Act{Cut: 300, Err: []error{nil, filltest.ErrBroken}[n%2]}
		},
		"ended early": func(int, fill.Range) filltest.Act { return filltest.Act{Short: 300} },
		"empty": func(n int, _ fill.Range) filltest.Act {
			return filltest.Act{Cut: 300, Err: []error{nil, nil, io.EOF}[n%3]}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := filltest.New(2000, 1)
				o.Plan = plan
				st := newStream(t.Context(), o)
				defer st.HangUp()
				got, err := io.ReadAll(st)
				if err != nil || !bytes.Equal(got, o.Content) {
					t.Fatalf("got %d bytes, %v", len(got), err)
				}
				if n, most := o.Total(); n != 2000 || most != 1 {
					t.Errorf("%d bytes were sent, one of them %d times", n, most)
				}
			})
		})
	}
}

func TestStreamReplacesAStalledConnectionAfterTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := filltest.New(1000, 1)
		o.Plan = func(n int, _ fill.Range) filltest.Act { return []filltest.Act{{Stall: 10}, {}}[n] }
		st := newStream(t.Context(), o)
		defer st.HangUp()
		begin := time.Now()
		if _, err := io.ReadAll(st); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < 2*time.Second || took > 3*time.Second {
			t.Errorf("a stall was noticed after %v, want 2 s", took)
		}
	})
}

// Each answer of the source has ten bytes, and then a pause.
func TestConnectionsThatStallAgainHaveMoreTimeUpToABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := filltest.New(60, 1)
		o.Plan = func(int, fill.Range) filltest.Act { return filltest.Act{Stall: 10} }
		st := newStream(t.Context(), o)
		defer st.HangUp()
		begin := time.Now()
		if _, err := io.ReadAll(st); err != nil {
			t.Fatal(err)
		}
		// The last ten bytes are the end, so five answers stall.
		if took, want := time.Since(begin), (2+4+8+15+15)*time.Second; took < want || took > want+3*time.Second {
			t.Errorf("five stalls took %v, want %v", took, want)
		}
	})
}

func TestStreamSkipsWhatASourceWithoutRangesRepeats(t *testing.T) {
	o := filltest.New(2*disk.ChunkSize+10, 1)
	o.NoRanges = true
	st := newStream(t.Context(), o)
	defer st.HangUp()
	o.Plan = func(n int, _ fill.Range) filltest.Act {
		if n == 0 {
			return filltest.Act{Cut: disk.ChunkSize + 5}
		}
		return filltest.Act{}
	}
	got, err := io.ReadAll(st)
	if err != nil || !bytes.Equal(got, o.Content) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	if n, _ := o.Total(); n != int64(len(o.Content))+disk.ChunkSize+5 {
		t.Errorf("%d bytes were sent", n)
	}
}

func TestStreamGivesUpWithoutProgress(t *testing.T) {
	for _, c := range []struct {
		name           string
		patient, spare bool
		tries          int
	}{
		{"at the beginning", false, false, 3},
		{"when clients have headers", true, false, 8},
		{"as a spare connection", true, true, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := filltest.New(100, 1)
				o.Plan = func(int, fill.Range) filltest.Act { return filltest.Act{Err: filltest.ErrBroken} }
				st := fill.NewStream(t.Context(), o.Fetch, 100, c.patient, c.spare)
				begin := time.Now()
				if _, err := st.Read(make([]byte, 10)); !errors.Is(err, filltest.ErrBroken) {
					t.Errorf("ended with %v", err)
				}
				if n := len(o.Requests()); n != c.tries {
					t.Errorf("%d requests, want %d", n, c.tries)
				}
				if took := time.Since(begin); took > 40*time.Second {
					t.Errorf("gave up after %v", took)
				}
			})
		})
	}
}

func TestStreamDoesNotRetryPermanentErrors(t *testing.T) {
	for name, err := range map[string]error{
		"missing": fmt.Errorf("blob: %w", fs.ErrNotExist),
		"denied":  fmt.Errorf("blob: %w", fs.ErrPermission),
		"busy":    busyError(time.Minute),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := filltest.New(100, 1)
				o.Plan = func(int, fill.Range) filltest.Act { return filltest.Act{Err: err} }
				st := newStream(t.Context(), o)
				begin := time.Now()
				if _, got := st.Read(make([]byte, 10)); !errors.Is(got, err) {
					t.Errorf("ended with %v", got)
				}
				if n := len(o.Requests()); n != 1 || time.Since(begin) > 0 {
					t.Errorf("%d requests in %v", n, time.Since(begin))
				}
			})
		})
	}
}

// busyError is the error of a source that asks for a pause.
type busyError time.Duration

func (busyError) Error() string               { return "busy" }
func (e busyError) RetryAfter() time.Duration { return time.Duration(e) }

func TestStreamWaitsAsLongAsTheSourceAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := filltest.New(100, 1)
		o.Plan = func(n int, _ fill.Range) filltest.Act {
			return []filltest.Act{{Err: busyError(7 * time.Second)}, {}}[n]
		}
		st := newStream(t.Context(), o)
		defer st.HangUp()
		begin := time.Now()
		if _, err := io.ReadAll(st); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 7*time.Second {
			t.Errorf("requested again after %v", took)
		}
	})
}

func TestStreamEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := filltest.New(100, 1)
		o.Plan = func(int, fill.Range) filltest.Act { return filltest.Act{Err: filltest.ErrBroken} }
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		time.AfterFunc(10*time.Millisecond, func() { cancel(gone) })
		if _, err := newStream(ctx, o).Read(make([]byte, 10)); !errors.Is(err, gone) {
			t.Errorf("ended with %v", err)
		}
	})
}
