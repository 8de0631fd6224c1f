package fill

import (
	"context"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
)

// passThrough reads a blob straight from a source, for one client, when the disk cannot take
// it, or when what the fill brings is of no use to the client.
//
// A client that reads the whole blob, from front to back, gets its last byte only when the
// digest has matched: the bytes are hashed on their way, and what another reader of the fill
// has skipped is fetched for the hash. A client that reads a range gets the bytes that the source
// sends, as it would without a cache: only the whole blob can be verified, and to fetch that for
// each range would cost the source many times the blob.
type passThrough struct {
	ctx    context.Context
	fetch  Fetch
	retry  Retry
	digest digest.Digest
	size   int64
	begun  bool // a source has answered: the client may have its headers

	off   int64   // of the next Read
	start int64   // where the client began to read
	until int64   // the end of what the client asked for; 0 if that is not known
	step  int64   // how many bytes were asked for last, while until is not known
	body  *stream // or nil

	hash     hash.Hash // of [0,hashed)
	hashed   int64
	verified bool
}

// NewPassing returns a reader of a blob that no fill brings, as the disk cannot take it. The
// source must know the blob's size. It is asked by [Reader.Begin], or by the first Read.
func NewPassing(ctx context.Context, s *Settings, d digest.Digest, source Source) *Reader {
	return &Reader{ctx: ctx, size: source.Size, pass: newPassThrough(ctx, s, d, source, source.Size)}
}

// passThrough begins where the fill's hash stopped, if that has only seen bytes of the source's
// own upstream. The fill has ended.
func (f *Fill) passThrough(ctx context.Context, source Source) *passThrough {
	p := f.passAll(ctx, source, f.size)
	if cloner, ok := f.hash.(hash.Cloner); ok && f.front < f.size && !f.segs.hasForeign(source.Upstream) {
		if h, err := cloner.Clone(); err == nil {
			p.hash, p.hashed = h, f.front
		}
	}
	return p
}

// passAll is a passThrough that uses nothing of the fill.
func (f *Fill) passAll(ctx context.Context, source Source, size int64) *passThrough {
	return newPassThrough(ctx, f.set, f.digest, source, size)
}

func newPassThrough(ctx context.Context, s *Settings, d digest.Digest, source Source, size int64) *passThrough {
	return &passThrough{ctx: ctx, fetch: source.Fetch, retry: s.Retry, digest: d, size: size, hash: d.Algorithm().Hash()}
}

// passSource is where a client reads on when the disk failed.
func (f *Fill) passSource(from *origin) Source {
	f.mu.Lock()
	defer f.mu.Unlock()
	if from.isHealthy() || !from.entitled {
		return from.Source
	}
	return f.source.Source
}

// begin asks the source for the n bytes at off that the client wants first. A source that
// does not have the blob is then an error before the client has its headers.
func (p *passThrough) begin(off, n int64) error {
	p.seek(off)
	p.until = min(off+n, p.size)
	p.hangUp()
	p.body = p.open(off)
	return p.body.begin()
}

func (p *passThrough) Read(b []byte) (int, error) {
	if p.off >= p.size {
		return 0, io.EOF
	}
	whole := p.isWhole()
	if whole {
		var err error
		if b, err = p.withhold(b); err != nil {
			return 0, err
		}
	}
	n, err := p.next(b)
	if whole && p.off == p.hashed {
		if err := p.feed(b[:n]); err != nil {
			return 0, err
		}
	}
	p.off += int64(n)
	return n, err
}

// isWhole reports whether the client reads the whole blob, as far as that is known.
func (p *passThrough) isWhole() bool { return p.start == 0 && (p.until == 0 || p.until == p.size) }

// withhold returns the part of b that the client may have before the digest is verified. It
// verifies the digest if that is only the last byte.
func (p *passThrough) withhold(b []byte) ([]byte, error) {
	if p.off < p.hashed { // stop where the hash stopped, and hash from there on
		b = b[:min(int64(len(b)), p.hashed-p.off)]
	}
	last := p.size - 1
	if p.off < last {
		return b[:min(int64(len(b)), last-p.off)], nil
	}
	if p.hashed != p.off && !p.verified {
		return b, p.hashRest()
	}
	return b, nil
}

// next reads the bytes at off from the source.
func (p *passThrough) next(b []byte) (int, error) {
	for {
		if p.body == nil || p.body.off != p.off || p.body.off == p.body.end {
			p.hangUp()
			p.body = p.open(p.off)
		}
		n, err := p.body.Read(b)
		if n > 0 || err != io.EOF || len(b) == 0 {
			p.begun = p.begun || n > 0
			return n, err
		}
	}
}

// feed hashes the next bytes, and compares the digest when there are no more.
func (p *passThrough) feed(b []byte) error {
	p.hash.Write(b)
	p.hashed += int64(len(b))
	if p.hashed < p.size {
		return nil
	}
	if digest.NewDigest(p.digest.Algorithm(), p.hash) != p.digest {
		return ErrMismatch
	}
	p.verified = true
	return nil
}

// hashRest fetches the bytes that the read has not brought to the hash: it went on from a fill that was
// ahead of its own hash.
func (p *passThrough) hashRest() error {
	p.hangUp()
	rest := p.stream(p.hashed, p.size)
	defer rest.hangUp()
	buf := disk.Buffer()
	defer disk.FreeBuffer(buf)
	for p.hashed < p.size {
		n, err := rest.Read(*buf)
		if err != nil {
			return err
		}
		if err := p.feed((*buf)[:n]); err != nil {
			return err
		}
	}
	if !p.verified {
		return ErrMismatch
	}
	return nil
}

// open returns a stream from off on. A client whose range is not known may stop or jump at any
// time: it gets little at first, and twice as much each time it reads on.
func (p *passThrough) open(off int64) *stream {
	end := p.until
	if end <= off {
		p.step = max(jumpLen, min(2*p.step, maxStep))
		end = min(off+p.step, p.size)
	}
	return p.stream(off, end)
}

// maxStep is the most that is asked for while the end of the client's range is not known, in bytes.
const maxStep = 8 << 20

func (p *passThrough) stream(off, end int64) *stream {
	return &stream{
		ctx:   p.ctx,
		fetch: p.fetch,
		tries: tries{retry: p.retry, patient: p.begun},
		off:   off,
		end:   end,
		size:  p.size,
	}
}

// Seek is io.Seeker.
func (p *passThrough) Seek(offset int64, whence int) (int64, error) {
	off, err := seek(p.off, p.size, offset, whence)
	if err != nil {
		return 0, err
	}
	p.seek(off)
	return off, nil
}

// seek begins another read. The open stream is of use if that begins where the stream is.
func (p *passThrough) seek(off int64) {
	if off != p.off {
		p.step = 0
	}
	p.off, p.start, p.until = off, off, 0
}

// expect notes that the client wants the next n bytes.
func (p *passThrough) expect(n int64) { p.until = min(p.off+n, p.size) }

func (p *passThrough) hangUp() {
	if p.body != nil {
		p.body.hangUp()
		p.body = nil
	}
}
