package fill

import (
	"slices"
	"time"
)

// sparePause is how long a fill adds no connections after one gave up: the source has none
// to spare, or trouble enough.
const sparePause = time.Second

// jumpLen is how many bytes are asked for at first where a client waits that jumped there, if
// its range is not longer. It may jump on, and the next client that jumps waits for a connection
// until they are here: 5 ms at 50 MB/s.
const jumpLen = 256 << 10

// recruitLocked adds connections while there are missing bytes that no connection fetches:
// up to Settings.Connections on a blob that is large enough, once its first bytes are here,
// so that clients do not wait longer for these; and up to Settings.Jumpers more if clients
// wait at offsets that no connection is near.
func (f *Fill) recruitLocked() {
	if time.Now().Before(f.quietUntil) {
		return
	}
	for f.state != failed && f.working > 0 && f.ranges {
		limit := 0
		if f.front > 0 {
			limit = f.steadyLocked()
		}
		if f.demandLocked() != nil {
			limit = f.steadyLocked() + f.set.Jumpers
		}
		if f.working >= limit || !f.set.Spare.TryAcquire(1) {
			return
		}
		seg := f.claimLocked()
		if seg == nil {
			f.set.Spare.Release(1)
			return
		}
		f.connectLocked(&connection{fill: f, seg: seg, spare: true})
	}
}

// steadyLocked is how many connections fetch bytes that no client waits for.
func (f *Fill) steadyLocked() int {
	if f.size <= 2*f.set.Segment {
		return 1
	}
	return f.set.Connections
}

// claimLocked claims the segment to fetch next: where the client waits that has waited
// longest, else the first missing one, unless more connections than that takes are at work.
func (f *Fill) claimLocked() *segment {
	most := f.set.Segment
	if w := f.demandLocked(); w != nil {
		return f.segs.claim(w.off, f.lengthLocked(w))
	}
	off := f.segs.firstIdle()
	if off < 0 || f.working > f.steadyLocked() {
		return nil
	}
	return f.segs.claim(off, most)
}

// wholeRange is how many segments of a client's range are fetched with one request at most: a
// client that jumps may wait for that connection.
const wholeRange = 4

// lengthLocked is how many bytes are fetched where a client waits: all of its range, and a segment of a
// range without an end, as containerd's chunks are. A client whose range is not known may read on or not:
// it gets little at first where it jumped, and twice as much each time it reads on.
func (f *Fill) lengthLocked(w *waiter) int64 {
	n := min(max(jumpLen, f.segs.behind(w.off)), f.set.Segment)
	most := f.set.Segment
	if w.until < f.size {
		most *= wholeRange
	}
	return max(n, min(w.until-w.off, most)) // the range is negative if it is not known
}

// demandLocked returns a client that waits for a byte which no connection fetches, or nil.
func (f *Fill) demandLocked() *waiter {
	for _, w := range f.waiters {
		if f.segs.isIdle(w.off) {
			return w
		}
	}
	return nil
}

// notedSegment is a segment that an earlier process noted in the journal.
type notedSegment struct {
	seg *segment
	crc uint32
}

// claimNotedLocked claims what an earlier process noted, the latest note first: it is the
// valid one if two notes are about the same bytes. The result is not nil.
func (f *Fill) claimNotedLocked(notes []note) []notedSegment {
	noted := make([]notedSegment, 0, len(notes))
	for _, n := range slices.Backward(notes) {
		seg := f.segs.claim(n.off, n.n)
		switch {
		case seg == nil:
		case seg.start == n.off && seg.end == n.off+n.n:
			noted = append(noted, notedSegment{seg: seg, crc: n.crc})
		default:
			f.segs.release(seg)
		}
	}
	slices.SortFunc(noted, func(a, b notedSegment) int { return int(a.seg.start - b.seg.start) })
	return noted
}

// readBack reads back what was noted. Bytes that are not what they were are missing again.
func (c *connection) readBack() error {
	f := c.fill
	for _, old := range c.noted {
		crc, err := f.part.checksum(old.seg.start, old.seg.end)
		if err != nil {
			return DiskError{err}
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
	return nil
}
