package fill // white-box: segments are not visible from outside

import (
	"testing"

	"pgregory.net/rapid"
)

// The states of a byte of the model.
const (
	byteMissing = iota
	byteClaimed // by a connection
	byteArrived
)

// The segments are used as connections do. The model has one state for each byte.
func TestSegmentsAgreeWithAByteMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 200).Draw(t, "size")
		segs := newSegments(size)
		model := make([]int, size)
		var active []*segment
		pick := func(t *rapid.T) int {
			if len(active) == 0 {
				t.Skip("there is no connection")
			}
			return rapid.IntRange(0, len(active)-1).Draw(t, "connection")
		}
		t.Repeat(map[string]func(*rapid.T){
			"claim": func(t *rapid.T) {
				off := rapid.Int64Range(-1, size+1).Draw(t, "off")
				n := rapid.Int64Range(1, size+1).Draw(t, "n")
				seg := segs.claim(off, n)
				idle := 0 <= off && off < size && model[off] == byteMissing
				if idle && seg == nil {
					t.Fatalf("the missing bytes at %d cannot be claimed", off)
				}
				if seg == nil {
					return
				}
				for i := seg.next(); i < seg.end; i++ {
					if model[i] != byteMissing {
						t.Fatalf("byte %d was claimed twice", i)
					}
					model[i] = byteClaimed
				}
				if seg.done() || idle && (seg.next() != off || seg.end > off+n) {
					t.Fatalf("claim(%d, %d) returned [%d,%d)", off, n, seg.next(), seg.end)
				}
				active = append(active, seg)
			},
			"arrive": func(t *rapid.T) {
				seg := active[pick(t)]
				if seg.done() {
					t.Skip("all its bytes have arrived")
				}
				n := rapid.Int64Range(1, seg.end-seg.next()).Draw(t, "n")
				for i := seg.next(); i < seg.next()+n; i++ {
					model[i] = byteArrived
				}
				seg.have += n
			},
			"extend": func(t *rapid.T) {
				seg := active[pick(t)]
				end := seg.end
				segs.extend(seg)
				for i := end; i < seg.end; i++ {
					if model[i] != byteMissing {
						t.Fatalf("byte %d was claimed by another connection", i)
					}
					model[i] = byteClaimed
				}
				if seg.end < size && model[seg.end] == byteMissing && segs.list[segs.at(seg.end)].have == 0 {
					t.Fatalf("the missing bytes at %d were not claimed", seg.end)
				}
			},
			"release": func(t *rapid.T) {
				i := pick(t)
				seg := active[i]
				active = append(active[:i], active[i+1:]...)
				for b := seg.next(); b < seg.end; b++ {
					model[b] = byteMissing
				}
				segs.release(seg)
			},
			"": func(t *rapid.T) { checkSegments(t, &segs, model) },
		})
	})
}

// checkSegments compares the segments with the model.
func checkSegments(t *rapid.T, segs *segments, model []int) {
	end, firstNew := int64(0), int64(-1)
	for _, seg := range segs.list {
		if seg.start != end || seg.end <= seg.start || seg.have < 0 || seg.next() > seg.end {
			t.Fatalf("segments do not cover the blob: %+v at %d", *seg, end)
		}
		end = seg.end
	}
	if end != int64(len(model)) {
		t.Fatalf("segments end at %d of %d", end, len(model))
	}
	for off := int64(len(model)) - 1; off >= 0; off-- {
		if model[off] == byteMissing {
			firstNew = off
		}
		if got := segs.isIdle(off); got != (model[off] == byteMissing) {
			t.Fatalf("isIdle(%d) = %v, and the byte is %d", off, got, model[off])
		}
		n := int64(0)
		for off+n < int64(len(model)) && model[off+n] == byteArrived {
			n++
		}
		if got := segs.available(off); got != n {
			t.Fatalf("available(%d) = %d, want %d", off, got, n)
		}
	}
	if got := segs.firstIdle(); got != firstNew {
		t.Fatalf("firstIdle() = %d, want %d", got, firstNew)
	}
}

func TestBehindCountsNeighboursThatCannotBeJoined(t *testing.T) {
	s := newSegments(100)
	var a, b Source
	for _, seg := range []struct {
		off, n int64
		by     *Source
	}{{10, 20, &a}, {30, 20, &b}, {50, 10, &a}} {
		part := s.claim(seg.off, seg.n)
		part.have, part.by = seg.n, seg.by
		s.release(part)
	}
	if got := s.behind(60); got != 50 || len(s.list) != 5 {
		t.Errorf("behind(60) = %d of %d segments, want 50 of 5", got, len(s.list))
	}
}

// Bytes that are known before an offset show that a client reads on and did not jump there.
func TestBehindCountsTheBytesBeforeAnOffset(t *testing.T) {
	s := newSegments(100)
	done := s.claim(0, 30)
	done.have = 30
	s.release(done)
	part := s.claim(60, 20)
	part.have = 5
	s.release(part)
	for off, want := range map[int64]int64{
		0:   0,
		30:  30,
		40:  0,
		60:  0,
		65:  5,
		70:  0,
		80:  0,
		100: 0,
	} {
		if got := s.behind(off); got != want {
			t.Errorf("behind(%[2]d) = %[1]d, want %[3]d", got, off, want)
		}
	}
}
