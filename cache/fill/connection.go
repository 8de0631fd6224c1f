package fill

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/tasks"
)

// connection is one goroutine's part in a fill: it claims a segment, fetches it, and claims
// the next, until nothing is left or its source gives up.
type connection struct {
	fill  *Fill
	first int64          // until the size is known: how much to ask for from offset 0
	seg   *segment       // nil until then
	spare bool           // it has a place in Settings.Spare
	noted []notedSegment // to be read back before anything else
	// The answer did not tell the size. Clients get it when the answer has shown itself to be
	// more than a short page of text.
	unsure bool
	local  bool // its source is: see Source.Local

	journaled int64 // the end of the last note in the journal
	crc       uint32
}

// connectLocked starts a connection.
func (f *Fill) connectLocked(c *connection) {
	f.working++
	f.conns.Go(c.run)
}

func (c *connection) run() {
	var err error
	if c.noted != nil {
		err = c.readBack()
	} else {
		err = c.fetch()
	}
	for c.next(err) {
		err = c.fetch()
	}
	if c.spare {
		c.fill.set.Spare.Release(1)
	}
}

// next ends the work on a segment and claims another one. It returns false if this
// connection has ended.
func (c *connection) next(err error) bool {
	f := c.fill
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.seg != nil {
		f.segs.release(c.seg)
	}
	readBack := c.noted != nil
	c.seg, c.first, c.noted = nil, 0, nil
	alone := f.working == 1
	if err != nil && !c.survivesLocked(err) || f.state == failed || readBack && !alone {
		f.leaveLocked()
		return false
	}
	if c.seg = f.claimLocked(); c.seg == nil {
		f.leaveLocked()
		return false
	}
	f.recruitLocked()
	return true
}

// survivesLocked decides what the error of a connection means for the fill, and whether
// the connection goes on. A fill fails with its last connection, and at once if another
// connection could not help.
func (c *connection) survivesLocked(err error) bool {
	f := c.fill
	last := f.working == 1
	switch {
	case f.state == failed, f.size == 0, isDiskError(err), contradicts(err):
		f.failLocked(err)
	case last && c.spare: // the last one may not leave the work to others
		c.spare = false
		f.set.Spare.Release(1)
		return true
	case last:
		f.failLocked(err)
	default:
		f.quietUntil = time.Now().Add(sparePause)
	}
	return false
}

// leaveLocked notes that a connection has ended.
func (f *Fill) leaveLocked() {
	f.working--
	if f.working == 0 {
		f.publishLocked() // all bytes were on disk: no source has told the size
	}
}

// fetch brings the segment to disk, through as many answers as that takes, of the source
// that is active at the time.
func (c *connection) fetch() error {
	f := c.fill
	t := &tries{retry: f.set.Retry, spare: c.spare}
	if c.seg != nil {
		c.journaled, c.crc = c.seg.next(), 0
		t.patient = f.isPublished()
	}
	for {
		source := c.useSource()
		broke := c.attempt(source, t)
		if err := c.note(); err != nil {
			return DiskError{err}
		}
		if broke == nil {
			return nil
		}
		pause, err := t.again(f.ctx, broke)
		if f.handOver(source, c.spare, err) {
			t.n = 0
			continue
		}
		if err != nil {
			return err
		}
		f.resuming(broke)
		if err := tasks.Wait(source.ctx, pause); err != nil && !errors.Is(err, errReplaced) {
			return err
		}
	}
}

// useSource returns the source to ask. What it brings is noted as its own.
func (c *connection) useSource() *origin {
	f := c.fill
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.seg != nil {
		c.seg = f.segs.attribute(c.seg, &f.source.Source)
	}
	c.local = f.source.Local
	return f.source
}

// attempt asks a source once, for the rest of the segment, and copies the answer.
func (c *connection) attempt(source *origin, t *tries) error {
	r := Range{Len: c.first, Spare: c.spare, Size: c.fill.expectedSize(source)}
	if c.seg != nil {
		r.Off, r.Len = c.seg.next(), c.seg.end-c.seg.next()
	}
	a, err := ask(source.ctx, source.Fetch, r, t.patience())
	if err != nil {
		return err
	}
	defer a.close()
	a.turns = &c.fill.turns
	if err := c.accept(source, a.Content); err != nil {
		return finalError{err}
	}
	if err := a.skipTo(r.Off); err != nil {
		return err
	}
	return c.copy(a, t)
}

// accept checks an answer against what is known of the blob, before a client gets any header.
// The first answer tells the size.
func (c *connection) accept(source *origin, content Content) error {
	f := c.fill
	told := f.sizeOf(source)
	if content.Size > 0 && told > 0 && content.Size != told {
		return fmt.Errorf("%w: %d instead of %d bytes", errSize, content.Size, told)
	}
	if c.seg == nil {
		size := content.Size
		if size < 0 {
			size = told
		}
		switch {
		case content.Size == 0:
			return ErrMismatch // the store has the one blob that is empty
		case size <= 0:
			return errNoSize
		}
		seg, err := f.place(size, c.first)
		if err != nil {
			return err
		}
		c.seg = seg
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case content.Size >= 0 && content.Size != f.size:
		return errChanged
	case content.Size < 0 && source.size == 0 && !source.entitled:
		return errNoSize // others have told it
	}
	source.size = cmp.Or(source.size, max(content.Size, 0))
	c.seg.by = &source.Source // it has no bytes of another: see useSource
	f.ranges = !content.Whole
	if content.Whole {
		if c.spare {
			return errNoRanges
		}
		f.segs.extend(c.seg)
	}
	c.unsure = content.Size < 0 && f.state == opening
	if !c.unsure {
		f.publishLocked()
	}
	f.recruitLocked()
	return nil
}

// sureLen is how many bytes of an answer that does not tell its size must arrive before
// clients are told that the blob is as large as its manifest says: the login pages and error
// pages that some storage sends with status 200 are shorter.
const sureLen = 64 << 10

// copy writes an answer's bytes to disk until the segment is complete or the answer breaks.
func (c *connection) copy(a *answer, t *tries) error {
	buf := disk.Buffer()
	defer disk.FreeBuffer(buf)
	for !c.seg.done() {
		n, err := a.Read((*buf)[:min(int64(len(*buf)), c.seg.end-c.seg.next())])
		if n > 0 {
			if err := c.write((*buf)[:n]); err != nil {
				return DiskError{err}
			}
			if !c.unsure {
				t.progress()
			}
			runtime.Gosched() // a client may wait for a processor to send the bytes on
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// write puts bytes on disk, then lets readers have them.
func (c *connection) write(chunk []byte) error {
	f, off := c.fill, c.seg.next()
	if err := f.part.write(chunk, off); err != nil {
		return err
	}
	end, front := c.advance(int64(len(chunk)))
	if front {
		f.hash.Write(chunk)
		f.hashed(int64(len(chunk)))
	}
	if !c.local {
		f.set.Fetched(len(chunk))
	}
	c.crc = crc32.Update(c.crc, castagnoli, chunk)
	if end-c.journaled >= journalStep {
		return c.note()
	}
	return nil
}

// advance makes n more bytes of the segment readable. front says that they are the next
// for the hash, which the caller then has. What a local source brings is left to Run.
func (c *connection) advance(n int64) (end int64, front bool) {
	f := c.fill
	f.mu.Lock()
	defer f.mu.Unlock()
	off := c.seg.next()
	c.seg.have += n
	f.arrived += n
	if c.unsure && (c.seg.have >= sureLen || c.seg.done()) {
		c.unsure = false
		f.publishLocked()
	}
	f.wakeLocked(off, off+n)
	switch {
	case off != f.front || f.hashing:
	case c.local:
		f.nudgeLocked()
	default:
		f.hashing, front = true, true
	}
	return off + n, front
}

// note brings the journal up to date.
func (c *connection) note() error {
	if c.seg == nil || c.seg.next() == c.journaled {
		return nil
	}
	end := c.seg.next()
	if c.local {
		disk.BeginWriteback(c.fill.part.data, c.journaled, end-c.journaled)
	}
	err := c.fill.part.note(note{off: c.journaled, n: end - c.journaled, crc: c.crc})
	c.journaled, c.crc = end, 0
	return err
}

// isPublished reports whether clients have the size.
func (f *Fill) isPublished() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state != opening
}

// resuming notes that a connection is about to be replaced.
func (f *Fill) resuming(cause error) {
	f.mu.Lock()
	f.trouble = cause
	f.mu.Unlock()
	f.set.Resumed()
	f.span.AddEvent("resumed", trace.WithAttributes(attribute.String("error", cause.Error())))
	f.log.Info("resuming a broken connection", "error", cause)
}
