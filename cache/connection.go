package cache

import (
	"errors"
	"hash/crc32"
	"io"
	"runtime"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// sparePause is how long a fill does without more connections after one gave
// up: the source has none to spare, or trouble enough.
const sparePause = time.Second

// leap is how many bytes are asked for where a client waits that jumped there. It
// may jump on, and the next one to jump waits for a connection that long at most:
// 5 ms at 50 MB/s.
const leap = 256 << 10

// connection is one goroutine's part in a fill: it claims a segment, fetches
// it, and claims the next, until nothing is left or its source gives up.
type connection struct {
	fill  *fill
	first int64    // with no segment: how much to ask for from offset 0
	seg   *segment // nil until the first answer tells the size
	spare bool     // holds a place in Store.spare
	old   []oldNote

	noted int64 // where the last note in the journal ended
	crc   uint32
}

// oldNote is a segment that an earlier process noted, to be checked.
type oldNote struct {
	seg *segment
	crc uint32
}

// join sets a connection to work.
func (f *fill) join(c *connection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.joinLocked(c)
}

func (f *fill) joinLocked(c *connection) {
	f.working++
	f.conns.Go(c.run)
}

// recruitLocked adds connections while there is ground that nobody works on: up to
// Options.Connections on a blob that is large enough to be worth it, once its first
// bytes are here, which clients are not to wait for longer; and up to
// Options.Leapers more where clients wait at offsets that nobody is near.
func (f *fill) recruitLocked() {
	if time.Now().Before(f.quiet) {
		return
	}
	for f.err == nil && f.working > 0 && f.ranges {
		limit := 0
		if f.front > 0 {
			limit = f.steadyLocked()
		}
		if f.demandLocked() >= 0 {
			limit = f.steadyLocked() + f.store.opts.Leapers
		}
		if f.working >= limit || !f.store.spare.TryAcquire(1) {
			return
		}
		seg := f.claimLocked()
		if seg == nil {
			f.store.spare.Release(1)
			return
		}
		f.joinLocked(&connection{fill: f, seg: seg, spare: true})
	}
}

// steadyLocked is how many connections fetch what no client waits for.
func (f *fill) steadyLocked() int {
	if f.size <= 2*f.store.opts.Segment {
		return 1
	}
	return f.store.opts.Connections
}

// claimLocked picks the ground to fetch next: where the client that has waited
// longest waits, else the lowest, unless more connections than that takes are
// at work. A client that jumped gets little at first, and twice as much each time
// that it reads on.
func (f *fill) claimLocked() *segment {
	most := f.store.opts.Segment
	if off := f.demandLocked(); off >= 0 {
		return f.segs.claim(off, min(max(leap, f.segs.behind(off)), most))
	}
	off := f.segs.firstIdle()
	if off < 0 || f.working > f.steadyLocked() {
		return nil
	}
	return f.segs.claim(off, most)
}

// demandLocked returns an offset that a client waits for and nobody fetches,
// or -1.
func (f *fill) demandLocked() int64 {
	for _, w := range f.waiters {
		if f.segs.isIdle(w.off) {
			return w.off
		}
	}
	return -1
}

func (c *connection) run() {
	defer func() {
		if c.spare {
			c.fill.store.spare.Release(1)
		}
	}()
	err := c.recover()
	for {
		if err == nil && (c.seg != nil || c.first > 0) {
			err = c.pull()
		}
		if !c.next(err) {
			return
		}
		err = nil
	}
}

// next ends the work on a segment and claims another. It reports false when
// this connection is over. A fill fails with its last connection, and at once
// where another one could not help.
func (c *connection) next(err error) bool {
	f := c.fill
	f.mu.Lock()
	defer f.mu.Unlock()
	readBack := c.seg == nil && c.first == 0 // of what an earlier process noted, and no more
	if c.seg != nil {
		f.segs.release(c.seg)
	}
	c.seg, c.first = nil, 0
	var ofDisk diskError
	switch {
	case err == nil:
	case f.err != nil || errors.As(err, &ofDisk) || errors.Is(err, errChanged) || f.size < 0:
		f.failLocked(err)
	case c.spare && f.working == 1:
		c.spare = false // the last one may not just leave
		f.store.spare.Release(1)
		err = nil
	case f.working == 1:
		f.failLocked(err)
	default:
		f.quiet = time.Now().Add(sparePause)
	}
	if err == nil && f.err == nil && (!readBack || f.working == 1) {
		c.seg = f.claimLocked()
	}
	if c.seg == nil {
		f.working--
		if f.working == 0 {
			f.publishLocked() // the source was not needed
		}
		return false
	}
	f.recruitLocked()
	return true
}

// pull fetches the segment to its end.
func (c *connection) pull() error {
	f := c.fill
	st := &stream{
		ctx:    f.ctx,
		fetch:  f.fetch,
		retry:  f.store.opts.Retry,
		spare:  c.spare,
		end:    c.first,
		opened: c.accept,
		resumed: func(cause error) {
			f.mu.Lock()
			f.trouble = cause
			f.mu.Unlock()
			f.store.metrics.resumed()
			f.span.AddEvent("resumed", trace.WithAttributes(attribute.String("error", cause.Error())))
			f.log.Info("resuming a broken connection", "error", cause)
		},
	}
	if c.seg != nil {
		st.off, st.end = c.seg.next(), c.seg.end
		c.noted, c.crc = st.off, 0
		f.mu.Lock()
		st.moved = f.published
		f.mu.Unlock()
	}
	defer st.hangUp()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := st.Read(*buf)
		if n > 0 {
			if err := c.write((*buf)[:n]); err != nil {
				return diskError{err}
			}
			runtime.Gosched() // a client may wait for a processor to send it on
		}
		if err == nil {
			continue
		}
		if noteErr := c.note(); noteErr != nil {
			return diskError{noteErr}
		}
		if err == io.EOF {
			return nil
		}
		return err
	}
}

// accept checks an answer against what is known of the blob, and returns where
// the segment ends. The first answer of all makes the partial.
func (c *connection) accept(content Content) (int64, error) {
	f := c.fill
	if c.seg == nil {
		size := content.Size
		if size < 0 {
			size = f.hint
		}
		switch {
		case content.Size == 0:
			return 0, errMismatch // Store.Open has the one blob that is empty
		case size <= 0:
			return 0, errNoSize
		}
		if err := f.prepare(size, func() { c.seg = f.segs.claim(0, c.first) }); err != nil {
			return 0, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if content.Size >= 0 && content.Size != f.size {
		return 0, errChanged
	}
	f.ranges = !content.Whole
	if content.Whole {
		if c.spare {
			return 0, errNoRanges
		}
		f.segs.extend(c.seg)
	}
	f.publishLocked()
	f.recruitLocked()
	return c.seg.end, nil
}

// write puts bytes on disk, then makes them known.
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
	f.store.metrics.fetched(len(chunk))
	c.crc = crc32.Update(c.crc, castagnoli, chunk)
	if end-c.noted >= journalStep {
		return c.note()
	}
	return nil
}

// advance makes n more bytes of the segment readable. It says whether they are the
// next for the hash, which the caller then has.
func (c *connection) advance(n int64) (end int64, front bool) {
	f := c.fill
	f.mu.Lock()
	defer f.mu.Unlock()
	off := c.seg.next()
	c.seg.have += n
	f.wakeLocked(off, off+n)
	if off == f.front && !f.hashing {
		f.hashing, front = true, true
	}
	return off + n, front
}

// note brings the journal up to date.
func (c *connection) note() error {
	if c.seg == nil || c.seg.next() == c.noted {
		return nil
	}
	end := c.seg.next()
	err := c.fill.part.note(note{off: c.noted, n: end - c.noted, crc: c.crc})
	c.noted, c.crc = end, 0
	return err
}

// reserveLocked claims what an earlier process noted, the latest note first: it
// is the one that holds where two speak of the same bytes.
func (c *connection) reserveLocked(notes []note) {
	f := c.fill
	for _, n := range slices.Backward(notes) {
		seg := f.segs.claim(n.off, n.n)
		switch {
		case seg == nil:
		case seg.start == n.off && seg.end == n.off+n.n:
			c.old = append(c.old, oldNote{seg: seg, crc: n.crc})
		default:
			f.segs.release(seg)
		}
	}
	slices.SortFunc(c.old, func(a, b oldNote) int { return int(a.seg.start - b.seg.start) })
}

// recover reads back what was noted. Where it is not what it was, it is
// ordinary ground again.
func (c *connection) recover() error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	f := c.fill
	for _, old := range c.old {
		crc, err := f.part.checksum(old.seg.start, old.seg.end, *buf)
		if err != nil {
			return diskError{err}
		}
		f.mu.Lock()
		if crc == old.crc {
			old.seg.have = old.seg.end - old.seg.start
			f.wakeLocked(old.seg.start, old.seg.end)
			f.nudgeLocked()
		}
		f.segs.release(old.seg)
		f.mu.Unlock()
		if f.ctx.Err() != nil {
			return f.ctx.Err()
		}
	}
	c.old = nil
	return nil
}
