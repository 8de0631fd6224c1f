// Package filltest has a source of one blob for tests: it misbehaves as it is told, and counts
// how often it sent each byte.
package filltest

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache/fill"
	"github.com/opencontainers/go-digest"
)

// Origin has one blob. Fetch may be called from several goroutines at once.
type Origin struct {
	Content []byte
	Digest  digest.Digest

	// Set before the first request.
	NoRanges bool // every answer is the whole blob
	NoSize   bool // no answer tells the size
	Upstream string
	// Plan is asked about each request, the first one being 0.
	Plan func(n int, r fill.Range) Act

	mu   sync.Mutex // guards what follows
	asks []fill.Range
	sent []fill.Range
	open int // bodies
	// Most is how many bodies were open at the same time.
	Most int
}

// Act is how a request is answered. The zero value answers as a registry should.
type Act struct {
	Wait  <-chan struct{} // before the answer begins
	Err   error           // instead of an answer
	Size  int64           // another size than the true one
	Cut   int64           // the body breaks after so many bytes, if not 0
	Short int64           // the body ends after so many bytes as if it were whole, if not 0
	Stall int64           // no byte comes after so many, if not 0
	Flip  int64           // this bit of the content is wrong, counted from 1
	Gate  func(off int64) // called before each byte range is sent
	Pace  time.Duration   // between two bytes, if not 0
}

// ErrBroken is how a body breaks.
var ErrBroken = errors.New("connection reset by the test")

// New returns an origin of n bytes that are different in every place.
func New(n int, seed uint64) *Origin {
	content := make([]byte, n)
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = random.Read(content) // never fails
	return &Origin{Content: content, Digest: digest.FromBytes(content)}
}

// Fetch is a [fill.Fetch].
func (o *Origin) Fetch(ctx context.Context, r fill.Range) (fill.Content, error) {
	o.mu.Lock()
	n := len(o.asks)
	o.asks = append(o.asks, r)
	o.mu.Unlock()
	var a Act
	if o.Plan != nil {
		a = o.Plan(n, r)
	}
	if a.Wait != nil {
		select {
		case <-a.Wait:
		case <-ctx.Done():
			return fill.Content{}, ctx.Err()
		}
	}
	if a.Err != nil {
		return fill.Content{}, a.Err
	}
	size := int64(len(o.Content))
	b := &originBody{ctx: ctx, origin: o, act: a, off: r.Off, end: min(r.Off+r.Len, size)}
	if o.NoRanges {
		b.off, b.end = 0, size
	}
	o.mu.Lock()
	o.open++
	o.Most = max(o.Most, o.open)
	o.mu.Unlock()
	told := size
	if a.Size != 0 {
		told = a.Size
	}
	if o.NoSize {
		told = -1
	}
	return fill.Content{Body: b, Whole: o.NoRanges, Size: told}, nil
}

// Source is the origin as a repository whose manifests do not tell the size.
func (o *Origin) Source() fill.Source {
	return fill.Source{Upstream: o.Upstream, Repository: "app", Fetch: o.Fetch}
}

// Requests returns what was asked for so far.
func (o *Origin) Requests() []fill.Range {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]fill.Range(nil), o.asks...)
}

// Total is how many bytes were sent, and most how often the most frequent
// byte was sent.
func (o *Origin) Total() (n int64, most int) {
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
	origin *Origin
	act    Act

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
	if b.act.Cut > 0 {
		if b.done >= b.act.Cut {
			return 0, ErrBroken
		}
		p = p[:min(int64(len(p)), b.act.Cut-b.done)]
	}
	if b.act.Short > 0 {
		if b.done >= b.act.Short {
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), b.act.Short-b.done)]
	}
	if b.act.Stall > 0 {
		if b.done >= b.act.Stall {
			<-b.ctx.Done()
			return 0, b.ctx.Err()
		}
		p = p[:min(int64(len(p)), b.act.Stall-b.done)]
	}
	if b.act.Gate != nil {
		b.act.Gate(b.off)
	}
	if b.act.Pace > 0 {
		p = p[:1]
		select {
		case <-time.After(b.act.Pace):
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		}
	}
	n := copy(p, b.origin.Content[b.off:])
	if bit := b.act.Flip - 1; bit >= 0 && b.off <= bit/8 && bit/8 < b.off+int64(n) {
		p[bit/8-b.off] ^= 1 << (bit % 8)
	}
	b.origin.mu.Lock()
	b.origin.sent = append(b.origin.sent, fill.Range{Off: b.off, Len: int64(n)})
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

// Compare reads [from,to) and compares it with the origin's content.
func (o *Origin) Compare(t testing.TB, r io.ReadSeeker, from, to int64) {
	t.Helper()
	if _, err := r.Seek(from, io.SeekStart); err != nil {
		t.Error(err)
		return
	}
	got := make([]byte, to-from)
	if n, err := io.ReadFull(r, got); err != nil {
		t.Errorf("read [%d,%d): %v after %d bytes", from, to, err, n)
		return
	}
	if string(got) != string(o.Content[from:to]) {
		t.Errorf("[%d,%d) are not the origin's bytes", from, to)
	}
}
