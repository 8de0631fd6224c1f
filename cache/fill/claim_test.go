package fill

import (
	"io"
	"testing"
)

func TestFetchIsAsLongAsTheRangeOfTheClientThatWaits(t *testing.T) {
	const size, off = 100 << 20, 40 << 20
	f := &Fill{set: &Settings{Segment: 8 << 20}, size: size, segs: newSegments(size)}
	for name, test := range map[string]struct{ off, until, want int64 }{
		"not known":               {off, 0, jumpLen},
		"a page":                  {off, off + 4<<10, jumpLen},
		"a segment":               {off, off + 8<<20, 8 << 20},
		"more than a segment":     {off, off + 20<<20, 20 << 20},
		"nearly all":              {off, size - 1, 32 << 20},
		"all, as containerd asks": {off, size, 8 << 20},
		"the last bytes":          {size - 5<<20, size, 5 << 20},
	} {
		if got := f.lengthLocked(&waiter{off: test.off, until: test.until}); got != test.want {
			t.Errorf("%s: %d bytes, want %d", name, got, test.want)
		}
	}
}

func TestReaderForgetsItsRangeWhenItSeeks(t *testing.T) {
	r := &Reader{size: 100}
	r.expect(50)
	if _, err := r.Seek(10, io.SeekStart); err != nil || r.wait.until != 0 {
		t.Errorf("at 10 the range ends at %d, %v", r.wait.until, err)
	}
}
