package cache

import (
	"io"
	"testing"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/fill/filltest"
)

// sized is a connection that takes what it is given.
type sized struct{ n int64 }

func (s *sized) ReadFrom(src io.Reader) (int64, error) {
	n := src.(*io.LimitedReader).N
	s.n += n
	return n, nil
}

// A fill moves a chunk from its source to the disk, the hash and a client without
// allocating. A note in the journal, for every fourth of them, is five allocations.
func TestChunksAllocateLittle(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	s := openStore(t, t.TempDir(), Options{Segment: 1 << 30})
	seed := uint64(0)
	allocated := func(size int) float64 {
		return testing.AllocsPerRun(1, func() {
			seed++
			o := filltest.New(size, seed)
			blob, err := s.Open(t.Context(), o.Digest, 0, o.Fetch)
			if err != nil {
				t.Fatal(err)
			}
			defer blob.Close()
			var got sized
			n, err := blob.ReadSeekCloser.(*fill.Reader).SendTo(&got, int64(size))
			if err != nil || n != int64(size) || got.n != n {
				t.Fatalf("%d of %d bytes, %v", n, size, err)
			}
			settle(s)
		})
	}
	few, many := 8, 72 // MiB
	chunks := float64((many - few) << 20 / disk.ChunkSize)
	if each := (allocated(many<<20) - allocated(few<<20)) / chunks; each > 1.5 {
		t.Errorf("%.2f allocations a chunk", each)
	}
}
