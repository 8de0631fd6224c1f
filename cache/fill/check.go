package fill

import (
	"bytes"
	"math/rand/v2"

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
	if n == 0 {
		return 0, false
	}
	if !r.from.entitled {
		own := min(f.segs.availableOf(off, func(seg *segment) bool { return seg.isOfRealm(r.from.realm()) }), n)
		switch {
		case own > 0:
			return own, false
		case r.trust == disputes && f.state != verified:
			return 0, false
		}
		return n, true
	}
	if len(f.sources) == 1 || f.state == verified {
		return n, false
	}
	own := min(f.segs.availableOf(off, func(seg *segment) bool { return !seg.isForeign(r.from.Upstream) }), n)
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

// readChecked reads bytes of another upstream, and returns them if they are those of the
// reader's own source. If they are not, one of the two lies: then the reader waits until the
// digest has decided. A client whose repository is not known to have the blob gets nothing
// that its own source does not send.
func (r *Reader) readChecked(p []byte) (int, error) {
	n, same, err := r.compare(p, r.growingSource())
	switch {
	case isDiskError(err):
		return r.leaveFill(p, err)
	case err != nil && (r.ctx.Err() != nil || !r.fill.isEntitled(r.from)):
		return 0, unproven(err)
	case err != nil:
		r.fill.setTrust(r, takesAll)
	case !same && r.fill.isRefuted(r):
		return 0, ErrUnproven
	case !same:
		r.fill.setTrust(r, disputes)
	default:
		r.off += int64(n)
		if r.matched += int64(n); r.matched >= min(proofSpan, r.size) {
			r.fill.entitle(r.from)
		}
		return n, nil
	}
	r.limit = r.off
	return r.read(p)
}

// compare reads bytes of another upstream into p, and compares them with the same bytes of the
// reader's own source. An error is of the own source, unless it is a [DiskError].
func (r *Reader) compare(p []byte, own *check) (n int, same bool, err error) {
	buf := disk.Buffer()
	defer disk.FreeBuffer(buf)
	want := (*buf)[:min(int64(len(p)), int64(len(*buf)), r.limit-r.off)]
	if n, err = own.Read(want); err != nil {
		return 0, false, err
	}
	if _, err := r.fill.part.data.ReadAt(p[:n], r.off); err != nil {
		return 0, false, DiskError{err}
	}
	if !bytes.Equal(p[:n], want[:n]) {
		return 0, false, nil
	}
	return n, true, nil
}

// isRefuted reports whether bytes that differ from those of the reader's own source are the
// right ones, and the reader may not have them for any other reason.
func (f *Fill) isRefuted(r *Reader) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == verified && !r.from.entitled
}

// growingSource is the stream of the reader's own source at its offset. It asks for little at
// first and for twice as much each time: few bytes of a source that was slow are to be compared.
func (r *Reader) growingSource() *check {
	c := r.check
	if c == nil {
		c = &check{step: jumpLen / 2}
		r.check = c
	}
	if c.stream == nil || c.off != r.off || c.off == c.end {
		c.hangUp()
		c.step = min(2*c.step, r.fill.set.Segment)
		c.stream = r.ownSource(c.step)
	}
	return c
}

// ownSource is a stream of n bytes at most of the reader's own source, at its offset.
func (r *Reader) ownSource(n int64) *stream {
	return &stream{
		ctx:   r.ctx,
		fetch: r.from.Fetch,
		tries: tries{retry: r.fill.set.Retry, patient: r.off > 0},
		off:   r.off,
		end:   min(r.off+n, r.size),
		size:  r.size,
	}
}

func (c *check) hangUp() {
	if c.stream != nil {
		c.stream.hangUp()
	}
}

// isEntitled is isKnown with what the fill has learned.
func (f *Fill) isEntitled(o *origin) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return o.entitled
}

// needsProof reports whether the clients of a source may not have all that is, or is about to
// be, on disk.
func (f *Fill) needsProof(o *origin) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !o.entitled && (f.source.realm() != o.realm() || f.segs.hasStrange(o.realm()))
}

// prove compares a few bytes of other realms with those of the reader's own source, before the
// client has its headers. It returns false if they differ: one of the two lies. The bytes are from
// a random place, as those of [Confirm] are: a source that knows how a blob begins proves nothing.
//
// It proves nothing where the client gets bytes of its own realm. The reader compares what is not
// of its realm until enough was the same.
func (r *Reader) prove() (same bool, err error) {
	defer func() { r.off, r.limit = 0, 0 }()
	if !r.fill.needsProof(r.from) {
		return true, nil
	}
	if err := r.await(); err != nil || !r.foreign {
		return err == nil, err // the client gets bytes of its own realm first
	}
	rest := make([]byte, min(proofLen, r.size))
	r.off, r.limit = rand.Int64N(min(r.size, proofSpan)-int64(len(rest))+1), 0
	own := &check{stream: r.ownSource(int64(len(rest)))}
	defer own.hangUp()
	for len(rest) > 0 {
		if err := r.await(); err != nil || !r.foreign {
			return err == nil, err
		}
		n, same, err := r.compare(rest, own)
		if err != nil || !same {
			return false, unproven(err)
		}
		r.off += int64(n)
		rest = rest[n:]
	}
	r.fill.entitle(r.from)
	return true, nil
}

// entitle notes that a source has sent enough bytes as other realms have brought them.
func (f *Fill) entitle(o *origin) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !o.entitled {
		o.entitled, o.confirmed = true, true
	}
}
