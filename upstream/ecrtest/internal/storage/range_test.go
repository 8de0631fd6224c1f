package storage

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// FuzzSelectRange is white-box, because the arithmetic is to hold for every size, and
// contents of every size cannot be served.
func FuzzSelectRange(f *testing.F) {
	for _, header := range []string{"", "bytes=0-0", "bytes=5-", "bytes=-5", "bytes=5-1", "bytes=0-1,2-3", "bytes=-0", "bytes=+1-2"} {
		f.Add(header, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		part := selectRange(header, size)
		switch part.status {
		case 200:
			if part.start != 0 || part.n != size {
				t.Errorf("everything is %d bytes from %d", part.n, part.start)
			}
		case 206:
			if part.start < 0 || part.n <= 0 || part.start > size-part.n {
				t.Errorf("%d bytes from %d are not in %d", part.n, part.start, size)
			}
		case 416:
			if part.n != 0 {
				t.Errorf("%d bytes in a range that is refused", part.n)
			}
		default:
			t.Errorf("status %d", part.status)
		}
	})
}
