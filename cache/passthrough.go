package cache

import (
	"context"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
)

// passthrough reads a blob straight from its source, for one client, when the
// disk cannot take it. It keeps the promise that no one gets the last byte of
// content that did not verify: a read from front to back hashes on its way, any
// other has the rest of the blob hashed before the last byte, which says that the
// source has the right content, not that this client got it.
type passthrough struct {
	ctx    context.Context
	fetch  Fetch
	retry  Retry
	digest digest.Digest
	size   int64

	off int64
	st  *stream // at off, or nil

	hash     hash.Hash // of [0,hashed)
	hashed   int64
	verified bool
}

// passthrough goes on where the fill's hash got to. The fill is done.
func (f *fill) passthrough(ctx context.Context) *passthrough {
	p := &passthrough{
		ctx:    ctx,
		fetch:  f.fetch,
		retry:  f.store.opts.Retry,
		digest: f.digest,
		size:   f.size,
		hash:   f.digest.Algorithm().Hash(),
	}
	if cloner, ok := f.hash.(hash.Cloner); ok && f.front < f.size {
		if h, err := cloner.Clone(); err == nil {
			p.hash, p.hashed = h, f.front
		}
	}
	return p
}

func (p *passthrough) Read(b []byte) (int, error) {
	if p.off >= p.size {
		return 0, io.EOF
	}
	if p.off < p.hashed { // stop where the hash got to, and hash on from there
		b = b[:min(int64(len(b)), p.hashed-p.off)]
	}
	if last := p.size - 1; p.off < last {
		b = b[:min(int64(len(b)), last-p.off)]
	} else if p.hashed != p.off && !p.verified {
		if err := p.hashRest(); err != nil {
			return 0, err
		}
	}
	if p.st == nil {
		p.st = p.stream(p.off)
	}
	n, err := p.st.Read(b)
	if p.off == p.hashed {
		if err := p.feed(b[:n]); err != nil {
			return 0, err
		}
	}
	p.off += int64(n)
	return n, err
}

// feed hashes the next bytes, and compares once there are no more.
func (p *passthrough) feed(b []byte) error {
	p.hash.Write(b)
	p.hashed += int64(len(b))
	if p.hashed < p.size {
		return nil
	}
	if digest.NewDigest(p.digest.Algorithm(), p.hash) != p.digest {
		return errMismatch
	}
	p.verified = true
	return nil
}

// hashRest fetches what no read has brought past the hash.
func (p *passthrough) hashRest() error {
	p.hangUp()
	rest := p.stream(p.hashed)
	defer rest.hangUp()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
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
		return errMismatch
	}
	return nil
}

func (p *passthrough) stream(off int64) *stream {
	return &stream{
		ctx:   p.ctx,
		fetch: p.fetch,
		retry: p.retry,
		off:   off,
		end:   p.size,
		moved: off > 0,
		opened: func(c Content) (int64, error) {
			if c.Size >= 0 && c.Size != p.size {
				return 0, errChanged
			}
			return p.size, nil
		},
		resumed: func(error) {},
	}
}

// Seek is io.Seeker.
func (p *passthrough) Seek(offset int64, whence int) (int64, error) {
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

func (p *passthrough) hangUp() {
	if p.st != nil {
		p.st.hangUp()
		p.st = nil
	}
}
