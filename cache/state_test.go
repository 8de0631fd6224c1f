package cache

import (
	"testing"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
)

func TestFillsListsRunningAndWaitingFills(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Segment: 512 << 10, fills: 1})
	if fills := s.Fills(); len(fills) != 0 {
		t.Errorf("before any request: %+v", fills)
	}
	o, behind := filltest.New(1<<20, 1), filltest.New(1000, 2)
	release, reached := make(chan struct{}), make(chan struct{})
	o.Plan = func(int, Range) filltest.Act {
		return filltest.Act{Gate: func(off int64) {
			if off == disk.ChunkSize { // one chunk has been read and written
				close(reached)
				<-release
			}
		}}
	}
	blob := open(t, s, o)
	defer blob.Close()
	receive(t, reached, "the second chunk is sent")
	waited := make(chan error, 1)
	go func() {
		blob, err := s.Open(t.Context(), behind.Digest, Source{Fetch: behind.Fetch})
		if err == nil {
			err = blob.Close()
		}
		waited <- err
	}()
	eventually(t, "two fills run or wait", func() bool { return len(s.Fills()) == 2 })
	fills := s.Fills()
	runs, waits := fills[0], fills[1]
	if runs.Digest != o.Digest || runs.Size != 1<<20 || runs.Have != disk.ChunkSize || runs.Connections != 1 || runs.Since.IsZero() {
		t.Errorf("the running fill: %+v", runs)
	}
	if waits.Digest != behind.Digest || waits.Size != 0 || waits.Have != 0 || waits.Connections != 0 || waits.Since.Before(runs.Since) {
		t.Errorf("the waiting fill: %+v", waits)
	}
	close(release)
	o.Compare(t, blob, 0, 1<<20)
	settle(t, s)
	if err := receive(t, waited, "the second blob is opened"); err != nil {
		t.Error(err)
	}
	if fills := s.Fills(); len(fills) != 0 {
		t.Errorf("after both fills: %+v", fills)
	}
}
