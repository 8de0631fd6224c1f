package cache

import "testing"

func TestFillsTellWhatIsOnItsWay(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Segment: 512 << 10, Fills: 1})
	if fills := s.Fills(); len(fills) != 0 {
		t.Errorf("nothing was asked for: %+v", fills)
	}
	o, behind := newOrigin(1<<20, 1), newOrigin(1000, 2)
	hold, held := make(chan struct{}), make(chan struct{})
	o.plan = func(int, Range) act {
		return act{gate: func(off int64) {
			if off == chunkSize { // that much has been read, and written
				close(held)
				<-hold
			}
		}}
	}
	blob := open(t, s, o)
	defer blob.Close()
	<-held
	if _, _, _, err := s.join(t.Context(), behind.digest, 0, behind.fetch); err != nil {
		t.Fatal(err)
	}
	fills := s.Fills()
	if len(fills) != 2 {
		t.Fatalf("%+v", fills)
	}
	runs, waits := fills[0], fills[1]
	if runs.Digest != o.digest || runs.Size != 1<<20 || runs.Have != chunkSize || runs.Connections != 1 || runs.Since.IsZero() {
		t.Errorf("the one that runs: %+v", runs)
	}
	if waits.Digest != behind.digest || waits.Size != 0 || waits.Have != 0 || waits.Connections != 0 || waits.Since.Before(runs.Since) {
		t.Errorf("the one whose turn has not come: %+v", waits)
	}
	close(hold)
	o.compare(t, blob, 0, 1<<20)
	settle(s)
	if fills := s.Fills(); len(fills) != 0 {
		t.Errorf("all is here: %+v", fills)
	}
}
