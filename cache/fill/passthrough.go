package fill

import (
	"context"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
)

// passThrough reads a blob straight from a source, for one client, when the disk cannot take
// it, or when what the fill brings is of no use to the client. It keeps the promise that no
// client gets the last byte of content that did not verify: a read from front to back is hashed
// on its way. Before the last byte of any other read, the rest of the blob is fetched and hashed.
// That says that the source has the right content, not that this client got it.
type passThrough struct {
	ctx    context.Context
	fetch  Fetch
	retry  Retry
	digest digest.Digest
	size   int64

	off  int64
	body *stream // at off, or nil

	hash     hash.Hash // of [0,hashed)
	hashed   int64
	verified bool
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
	return &passThrough{
		ctx:    ctx,
		fetch:  source.Fetch,
		retry:  f.set.Retry,
		digest: f.digest,
		size:   size,
		hash:   f.digest.Algorithm().Hash(),
	}
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

// begin asks the source, so that a source that does not have the blob is an error before the
// client has its headers.
func (p *passThrough) begin() error {
	p.body = p.open(p.off)
	return p.body.begin()
}

func (p *passThrough) Read(b []byte) (int, error) {
	if p.off >= p.size {
		return 0, io.EOF
	}
	if p.off < p.hashed { // stop where the hash stopped, and hash from there on
		b = b[:min(int64(len(b)), p.hashed-p.off)]
	}
	if last := p.size - 1; p.off < last {
		b = b[:min(int64(len(b)), last-p.off)]
	} else if p.hashed != p.off && !p.verified {
		if err := p.hashRest(); err != nil {
			return 0, err
		}
	}
	if p.body == nil {
		p.body = p.open(p.off)
	}
	n, err := p.body.Read(b)
	if p.off == p.hashed {
		if err := p.feed(b[:n]); err != nil {
			return 0, err
		}
	}
	p.off += int64(n)
	return n, err
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

// hashRest fetches the bytes that no read has brought to the hash.
func (p *passThrough) hashRest() error {
	p.hangUp()
	rest := p.open(p.hashed)
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

func (p *passThrough) open(off int64) *stream {
	return &stream{
		ctx:   p.ctx,
		fetch: p.fetch,
		tries: tries{retry: p.retry, patient: off > 0},
		off:   off,
		end:   p.size,
		size:  p.size,
	}
}

// Seek is io.Seeker.
func (p *passThrough) Seek(offset int64, whence int) (int64, error) {
	off, err := seek(p.off, p.size, offset, whence)
	if err != nil {
		return 0, err
	}
	if off != p.off {
		p.hangUp()
	}
	p.off = off
	return off, nil
}

func (p *passThrough) hangUp() {
	if p.body != nil {
		p.body.hangUp()
		p.body = nil
	}
}
