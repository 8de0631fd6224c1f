// The race detector allocates.

//go:build !race

package fill_test

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/fill/filltest"
)

// folderStore is a fill.Store that keeps no blob.
type folderStore struct{ folder *disk.Folder }

func (s folderStore) Reserve(_ context.Context, d digest.Digest, size int64) (*fill.Partial, error) {
	return fill.CreatePartial(s.folder, d, size)
}

func (s folderStore) Commit(_ digest.Digest, p *fill.Partial, _ []fill.Source) error {
	return p.Discard()
}

func (s folderStore) Abandon(_ digest.Digest, p *fill.Partial, _ int64, _ error) { _ = p.Discard() }

// countingConn is a connection that counts the bytes that it is given and reads none.
type countingConn struct {
	n    atomic.Int64
	more chan struct{} // capacity 1; receives when n has grown
	gone chan struct{} // closed when the client has left
}

func (c *countingConn) ReadFrom(src io.Reader) (int64, error) {
	n := src.(*io.LimitedReader).N
	c.n.Add(n)
	select {
	case c.more <- struct{}{}:
	default:
	}
	return n, nil
}

// await returns when the connection got n bytes, or the client has left.
func (c *countingConn) await(n int64) {
	for c.n.Load() < n {
		select {
		case <-c.more:
		case <-c.gone:
			return
		}
	}
}

// A fill moves a chunk from its source to the disk, the hash and a client without
// allocations. Each fourth chunk needs one for its note in the journal.
//
// The store of this test has no index: Badger's goroutines allocate too, and more of it the
// longer the fill takes.
func TestChunksAllocateLittle(t *testing.T) {
	folder, err := disk.Open(t.TempDir(), disk.Steps{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := folder.Close(); err != nil {
			t.Error(err)
		}
	})
	set := fill.Settings{
		Store:   folderStore{folder},
		Segment: 1 << 30, // one connection
		Log:     slog.New(slog.DiscardHandler),
	}.WithDefaults()
	allocated := func(size int) float64 {
		o := filltest.New(size, 1)
		return testing.AllocsPerRun(1, func() {
			conn := &countingConn{more: make(chan struct{}, 1), gone: make(chan struct{})}
			// The next chunk is sent when the client has the one before, so that it gets one at a time.
			o.Plan = func(int, fill.Range) filltest.Act { return filltest.Act{Gate: conn.await} }
			f := fill.New(t.Context(), &set, o.Digest, o.Source(), time.Now())
			ended := make(chan error, 1)
			go func() {
				ended <- f.Run(nil, nil)
				f.End()
			}()
			r, err := f.Open(t.Context(), o.Source(), true)
			if err != nil {
				t.Fatal(err)
			}
			n, err := r.SendTo(conn, int64(size))
			close(conn.gone)
			if err != nil || n != int64(size) || conn.n.Load() != n {
				t.Errorf("%d of %d bytes, %v", n, size, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
			<-f.Done()
		})
	}
	few, many := 8, 72 // MiB
	chunks := float64((many - few) << 20 / disk.ChunkSize)
	each := (allocated(many<<20) - allocated(few<<20)) / chunks
	if each > 0.5 {
		t.Errorf("%.2f allocations a chunk, want at most 0.5", each)
	}
}
