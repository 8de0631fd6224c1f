package cache

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

// origin has one blob, misbehaves as it is told, and counts how often it sent
// each byte.
type origin struct {
	content []byte
	digest  digest.Digest

	// Set before the first request.
	noRanges bool // every answer is the whole blob
	noSize   bool // no answer tells the size
	// plan is asked about each request, the first one being 0.
	plan func(n int, r Range) act

	mu   sync.Mutex // guards what follows
	asks []Range
	sent []Range
	open int // bodies
	most int // bodies that were open at the same time
}

// act is how a request is answered. The zero value is as it should be.
type act struct {
	wait  <-chan struct{} // before the answer begins
	err   error           // instead of an answer
	size  int64           // another size than the true one
	cut   int64           // the body breaks after so many bytes, if not 0
	short int64           // the body ends after so many bytes as if it were whole, if not 0
	stall int64           // no byte comes after so many, if not 0
	flip  int64           // this bit of the content is wrong, counted from 1
	gate  func(off int64) // called before each byte range is sent
}

var errBroken = errors.New("connection reset by the test")

// newOrigin has n bytes that are different in every place.
func newOrigin(n int, seed uint64) *origin {
	content := make([]byte, n)
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = random.Read(content) // never fails
	return &origin{content: content, digest: digest.FromBytes(content)}
}

func (o *origin) fetch(ctx context.Context, r Range) (Content, error) {
	o.mu.Lock()
	n := len(o.asks)
	o.asks = append(o.asks, r)
	o.mu.Unlock()
	var a act
	if o.plan != nil {
		a = o.plan(n, r)
	}
	if a.wait != nil {
		select {
		case <-a.wait:
		case <-ctx.Done():
			return Content{}, ctx.Err()
		}
	}
	if a.err != nil {
		return Content{}, a.err
	}
	size := int64(len(o.content))
	b := &originBody{ctx: ctx, origin: o, act: a, off: r.Off, end: min(r.Off+r.Len, size)}
	if o.noRanges {
		b.off, b.end = 0, size
	}
	o.mu.Lock()
	o.open++
	o.most = max(o.most, o.open)
	o.mu.Unlock()
	told := size
	if a.size != 0 {
		told = a.size
	}
	if o.noSize {
		told = -1
	}
	return Content{Body: b, Whole: o.noRanges, Size: told}, nil
}

// requests returns what was asked for so far.
func (o *origin) requests() []Range {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Range(nil), o.asks...)
}

// total is how many bytes were sent, and most how often the byte that was sent
// most often was.
func (o *origin) total() (n int64, most int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change := make(map[int64]int) // of how often a byte was sent, from one to the next
	for _, r := range o.sent {
		n += r.Len
		change[r.Off]++
		change[r.Off+r.Len]--
	}
	times := 0
	for _, off := range slices.Sorted(maps.Keys(change)) {
		times += change[off]
		most = max(most, times)
	}
	return n, most
}

type originBody struct {
	ctx    context.Context
	origin *origin
	act    act

	off, end int64
	done     int64
}

func (b *originBody) Read(p []byte) (int, error) {
	if b.off >= b.end {
		return 0, io.EOF
	}
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	p = p[:min(int64(len(p)), b.end-b.off)]
	if b.act.cut > 0 {
		if b.done >= b.act.cut {
			return 0, errBroken
		}
		p = p[:min(int64(len(p)), b.act.cut-b.done)]
	}
	if b.act.short > 0 {
		if b.done >= b.act.short {
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), b.act.short-b.done)]
	}
	if b.act.stall > 0 {
		if b.done >= b.act.stall {
			<-b.ctx.Done()
			return 0, b.ctx.Err()
		}
		p = p[:min(int64(len(p)), b.act.stall-b.done)]
	}
	if b.act.gate != nil {
		b.act.gate(b.off)
	}
	n := copy(p, b.origin.content[b.off:])
	if bit := b.act.flip - 1; bit >= 0 && b.off <= bit/8 && bit/8 < b.off+int64(n) {
		p[bit/8-b.off] ^= 1 << (bit % 8)
	}
	b.origin.mu.Lock()
	b.origin.sent = append(b.origin.sent, Range{Off: b.off, Len: int64(n)})
	b.origin.mu.Unlock()
	b.off += int64(n)
	b.done += int64(n)
	return n, nil
}

func (b *originBody) Close() error {
	b.origin.mu.Lock()
	defer b.origin.mu.Unlock()
	b.origin.open--
	return nil
}
