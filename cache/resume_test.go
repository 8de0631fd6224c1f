package cache

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/fill/filltest"
)

// resumable has segments for which the journal gets several notes.
var resumable = Options{Segment: 2 << 20, Connections: 3}

// interrupt begins a fill, and closes the store when every connection hangs in the middle of
// its segment. It returns how many bytes were sent.
func interrupt(t *testing.T, dir string, o *filltest.Origin) int64 {
	t.Helper()
	s := openStore(t, dir, resumable)
	o.Plan = func(int, Range) filltest.Act { return filltest.Act{Stall: 1<<20 + 500<<10} }
	blob := open(t, s, o)
	o.Compare(t, blob, 0, 1<<20)
	o.Compare(t, blob, 2<<20, 3<<20)
	blob.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.Plan = nil
	n, _ := o.Total()
	return n
}

func TestPartialIsResumedAfterARestart(t *testing.T) {
	dir := t.TempDir()
	o := filltest.New(9<<20+1, 1)
	before := interrupt(t, dir, o)
	if before == 0 || before >= int64(len(o.Content)) {
		t.Fatalf("%d bytes were sent before the restart", before)
	}
	s := openStore(t, dir, resumable)
	pull(t, s, o)
	settle(t, s)
	if n, most := o.Total(); n != int64(len(o.Content)) || most != 1 {
		t.Errorf("%d bytes were sent, one of them %d times", n, most)
	}
}

func TestPartialIsResumedAfterACrash(t *testing.T) {
	opts := resumable
	opts.Retry.FirstStall, opts.Retry.Stall = time.Hour, time.Hour // so that the hanging connections are not replaced, even on a slow machine
	s := openStore(t, t.TempDir(), opts)
	o := filltest.New(9<<20, 1)
	const sent = 1<<20 + 500<<10 // of each segment; the journal has a note for one MiB of it
	o.Plan = func(int, Range) filltest.Act { return filltest.Act{Stall: sent} }
	blob := open(t, s, o)
	defer blob.Close()
	for i := range int64(opts.Connections) { // bytes after a MiB can be read only when its note is written
		o.Compare(t, blob, i*opts.Segment, i*opts.Segment+sent)
	}
	dir := crash(t, s.folder.Dir())
	o.Plan = nil
	after := openStore(t, dir, resumable)
	pull(t, after, o)
	settle(t, after)
	n, most := o.Total()
	if again := n - int64(len(o.Content)); again > int64(opts.Connections)*(sent-(1<<20)) || most > 2 {
		t.Errorf("%d bytes were sent again, one of them %d times", again, most)
	}
}

func TestDamagedPartialIsFetchedAgain(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, data *os.File){
		"a bit": func(t *testing.T, data *os.File) {
			flip := make([]byte, 1)
			if _, err := data.ReadAt(flip, 100); err != nil {
				t.Fatal(err)
			}
			flip[0] ^= 4
			if _, err := data.WriteAt(flip, 100); err != nil {
				t.Fatal(err)
			}
		},
		"lost writes": func(t *testing.T, data *os.File) {
			if _, err := data.WriteAt(make([]byte, 1<<20), 2<<20); err != nil {
				t.Fatal(err)
			}
		},
		"the end": func(t *testing.T, data *os.File) {
			if err := data.Truncate(3 << 20); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := filltest.New(9<<20, 1)
			interrupt(t, dir, o)
			data, err := os.OpenFile(disk.At(dir).Partial(o.Digest).Data, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			damage(t, data)
			if err := data.Close(); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, dir, resumable)
			pull(t, s, o)
		})
	}
}

func TestOpenOfAPartialFailsIfTheSourceIsDead(t *testing.T) {
	dir := t.TempDir()
	o := filltest.New(9<<20, 1)
	interrupt(t, dir, o)
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, dir, resumable)
		o.Plan = func(int, Range) filltest.Act { return filltest.Act{Err: filltest.ErrBroken} }
		begin := time.Now()
		if _, err := s.Open(t.Context(), o.Digest, Source{Fetch: o.Fetch}); !errors.Is(err, filltest.ErrBroken) {
			t.Errorf("open: %v", err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		o.Plan = nil
		before, _ := o.Total()
		pull(t, s, o)
		settle(t, s)
		if n, most := o.Total(); n != int64(len(o.Content)) || most != 1 || before == 0 {
			t.Errorf("%d bytes were sent, one of them %d times", n, most)
		}
	})
}

func TestResumeFromASourceWithoutRangesUsesOneConnection(t *testing.T) {
	dir := t.TempDir()
	o := filltest.New(9<<20, 1)
	interrupt(t, dir, o)
	o.NoRanges, o.Most = true, 0
	s := openStore(t, dir, resumable)
	pull(t, s, o)
	settle(t, s)
	if o.Most != 1 {
		t.Errorf("%d connections at the same time", o.Most)
	}
}

func TestResumeContinuesAfterATornNote(t *testing.T) {
	dir := t.TempDir()
	o := filltest.New(9<<20, 1)
	interrupt(t, dir, o)
	journal := disk.At(dir).Partial(o.Digest).Journal
	raw, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(journal, raw[:len(raw)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	interrupt(t, dir, o)
	s := openStore(t, dir, resumable)
	pull(t, s, o)
	settle(t, s)
	n, _ := o.Total()
	if again := n - int64(len(o.Content)); again > (1 << 20) {
		t.Errorf("%d bytes were sent again for one torn note", again)
	}
}

// Notes may match bytes of another blob: only the digest tells.
func TestResumedBlobIsVerifiedAsAWhole(t *testing.T) {
	dir := t.TempDir()
	good, bad := filltest.New(9<<20, 1), filltest.New(9<<20, 2)
	interrupt(t, dir, bad)
	from, to := disk.At(dir).Partial(bad.Digest), disk.At(dir).Partial(good.Digest)
	if err := os.Rename(from.Data, to.Data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(from.Journal, to.Journal); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir, resumable)
	blob, err := s.Open(t.Context(), good.Digest, good.Source())
	if err == nil { // else the fill failed before it could be read
		_, err = io.Copy(io.Discard, blob)
		blob.Close()
	}
	if !errors.Is(err, fill.ErrMismatch) {
		t.Errorf("the bytes of another blob were served: %v", err)
	}
	settle(t, s)
	pull(t, s, good)
}

func TestStartUpRemovesFilesThatCannotBeResumed(t *testing.T) {
	dir := t.TempDir()
	o := filltest.New(9<<20, 1)
	interrupt(t, dir, o)
	partial := filepath.Join(dir, "partial")
	for _, name := range []string{"sha256-data-without-journal", "sha256-journal-without-data.journal", "put-" + "123"} {
		if err := os.WriteFile(filepath.Join(partial, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openStore(t, dir, resumable)
	if left := files(t, partial); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}
