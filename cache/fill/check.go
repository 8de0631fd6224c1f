package fill

import (
	"bytes"

	"github.com/larder-registry/larder/cache/disk"
)

// trust is what a reader may take of a fill whose bytes are not all of the reader's own
// upstream.
type trust uint8

const (
	compares trust = iota // it compares bytes of another upstream with its own source
	disputes              // they differed: it takes only verified bytes, and those of its own upstream
	takesAll              // it has taken unverified bytes of another, since its own source was not healthy
)

// offerLocked is how many bytes a reader may have from off on, and whether it must compare
// them with its own source.
func (f *Fill) offerLocked(r *Reader, off int64) (n int64, foreign bool) {
	n = f.readableLocked(off)
	if n == 0 || len(f.sources) == 1 || f.state == verified {
		return n, false
	}
	own := min(f.segs.availableFrom(off, r.from.Upstream), n)
	switch {
	case own > 0:
		return own, false
	case r.trust == disputes:
		return 0, false
	case r.trust == takesAll || !r.from.isHealthy():
		r.trust = takesAll
		return n, false
	}
	return n, true
}

// setTrust changes what a reader may take.
func (f *Fill) setTrust(r *Reader, t trust) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.trust = t
}

// sparedOf reports whether a fill that did not match its digest had bytes of other upstreams
// than a reader's own, and the reader has taken none of these.
func (f *Fill) sparedOf(r *Reader) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return r.trust != takesAll && f.segs.hasForeign(r.from.Upstream)
}

// check is a stream of the reader's own source, with which it compares bytes on disk.
type check struct {
	*stream
	step int64 // how many bytes were asked for
}

// readChecked reads bytes of another upstream, compares them with the same bytes of the
// reader's own source, and returns them if they are equal. If they are not, one of the two
// lies: then the reader waits until the digest has decided.
func (r *Reader) readChecked(p []byte) (int, error) {
	buf := disk.Buffer()
	defer disk.FreeBuffer(buf)
	want := (*buf)[:min(int64(len(p)), int64(len(*buf)), r.limit-r.off)]
	n, err := r.ownSource().Read(want)
	if err != nil {
		if r.ctx.Err() != nil {
			return 0, err
		}
		r.fill.setTrust(r, takesAll)
		r.limit = r.off
		return r.read(p)
	}
	if _, err := r.fill.part.data.ReadAt(p[:n], r.off); err != nil {
		return r.leaveFill(p, DiskError{err})
	}
	if !bytes.Equal(p[:n], want[:n]) {
		r.fill.setTrust(r, disputes)
		r.limit = r.off
		return r.read(p)
	}
	r.off += int64(n)
	return n, nil
}

// ownSource is the stream of the reader's own source at its offset. It asks for little at
// first and for twice as much each time: few bytes of a source that was slow are to be
// compared.
func (r *Reader) ownSource() *check {
	c := r.check
	if c == nil {
		c = &check{step: jumpLen / 2}
		r.check = c
	}
	if c.stream == nil || c.off != r.off || c.off == c.end {
		c.hangUp()
		c.step = min(2*c.step, r.fill.set.Segment)
		c.stream = &stream{
			ctx:   r.ctx,
			fetch: r.from.Fetch,
			tries: tries{retry: r.fill.set.Retry, patient: r.off > 0},
			off:   r.off,
			end:   min(r.off+c.step, r.size),
			size:  r.size,
		}
	}
	return c
}

func (c *check) hangUp() {
	if c.stream != nil {
		c.stream.hangUp()
	}
}
