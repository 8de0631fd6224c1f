package link

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/larder-registry/larder/upstream/pace"
)

// Rules say how much of the line may be used. The zero value sets no bound.
type Rules struct {
	// Rate bounds everything, in bytes per second. 0 means no bound.
	Rate int64
	// Background bounds what no client waits for, in bytes per second, within Rate. 0
	// means no bound of its own.
	Background int64
	// Hours are when that may be fetched at all.
	Hours Hours
}

// String says what the rules are, for people.
func (r Rules) String() string {
	var all []string
	if r.Rate > 0 {
		all = append(all, "at most "+humanize.Bytes(uint64(r.Rate))+"/s")
	}
	var background []string
	if r.Background > 0 {
		background = append(background, "at most "+humanize.Bytes(uint64(r.Background))+"/s")
	}
	if !r.Hours.always() {
		background = append(background, r.Hours.String())
	}
	if background != nil {
		all = append(all, "in the background "+strings.Join(background, ", "))
	}
	if all == nil {
		return "no bound"
	}
	return strings.Join(all, "; ")
}

// Now is String, and says whether the hours are over at a time.
func (r Rules) Now(now time.Time) string {
	if r.Hours.contains(now) {
		return r.String()
	}
	return r.String() + " (shut until " + next(now, r.Hours.From).Format("15:04 MST") + ")"
}

// Link is a line. It is safe for concurrent use. It starts no goroutines. A nil Link has no
// rules and counts nothing.
type Link struct {
	whole, background *queue

	bytes   [classes]atomic.Int64
	waiting [classes]atomic.Int64 // bodies

	mu    sync.Mutex // held while the rules are changed
	state atomic.Pointer[state]
}

// state is the rules, and a channel that is closed when there are others.
type state struct {
	Rules
	changed chan struct{}
}

// New returns a line with these rules.
func New(rules Rules) *Link {
	l := &Link{whole: newQueue(), background: newQueue()}
	l.state.Store(&state{changed: make(chan struct{})})
	l.Set(rules)
	return l
}

// Set changes the rules. What waits is held to the new ones at once.
func (l *Link) Set(rules Rules) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.whole.setRate(rules.Rate)
	l.background.setRate(rules.Background)
	old := l.state.Swap(&state{rules, make(chan struct{})})
	close(old.changed)
}

// Rules returns the rules.
func (l *Link) Rules() Rules { return l.state.Load().Rules }

// Postponed returns a [ClosedError] while what no client waits for may not be fetched, and
// else nil.
func (l *Link) Postponed() error {
	if l == nil {
		return nil
	}
	return l.state.Load().Closed(time.Now())
}

// Closed returns a [ClosedError] if what no client waits for may not be fetched at a time, and
// else nil.
func (r Rules) Closed(now time.Time) error {
	if r.Hours.contains(now) {
		return nil
	}
	return &ClosedError{Until: next(now, r.Hours.From)}
}

// Charge counts bytes that did not wait. ctx is that of their request: see
// [pace.Background].
func (l *Link) Charge(ctx context.Context, n int64) {
	if l == nil {
		return
	}
	l.whole.charge(n)
	c := attended
	if _, background := pace.BackgroundOf(ctx); background {
		l.background.charge(n)
		c = unattended
	}
	l.bytes[c].Add(n)
}

// clientKey is the key of a context's client.
type clientKey struct{}

// For returns a context for what is fetched for a client, by its address.
func For(ctx context.Context, client string) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

// Body is a body that is read within the rules. It belongs to one goroutine.
type Body struct {
	io.ReadCloser
	link     *Link
	ctx      context.Context
	client   string
	attended <-chan struct{} // closed when a client waits; see pace.BackgroundOf

	background bool // no client waits
	credit     int  // bytes that are paid for
	ofBoth     bool // the credit is paid to the background's queue too
}

// Body returns a body that waits for its turns. ctx is that of its request, which says who
// waits for it: see [For] and [pace.BackgroundUntil]. It bounds the waiting, too. The body of a
// nil Link is body itself.
func (l *Link) Body(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	if l == nil {
		return body
	}
	b := &Body{ReadCloser: body, link: l, ctx: ctx}
	b.client, _ = ctx.Value(clientKey{}).(string)
	b.attended, b.background = pace.BackgroundOf(ctx)
	return b
}

// Turn waits until some bytes may be read, or until ctx ends. A Read that follows waits for
// the upstream alone. waited says that Turn did not return at once. The error is a [ClosedError]
// if the bytes may not be read before the hours of the background.
func (b *Body) Turn(ctx context.Context) (waited bool, err error) {
	for b.credit == 0 {
		rules := b.link.state.Load()
		b.update()
		var late bool
		err = nil
		switch {
		case b.background:
			late, err = b.backgroundTurn(ctx, rules)
		case rules.Rate > 0:
			b.credit, late, err = b.pass(ctx, b.link.whole, conditions{changed: rules.changed}, math.MaxInt)
		}
		waited = waited || late
		var closed *ClosedError
		switch {
		case errors.Is(err, errAgain):
		case errors.As(err, &closed) && !b.update(): // a client began to wait as the hours ended
		default:
			return waited, err
		}
	}
	return waited, nil
}

// class says whose turn the body waits for.
func (b *Body) class() class {
	if b.background {
		return unattended
	}
	return attended
}

// pass waits for a turn of the body in a queue: see queue.pass.
func (b *Body) pass(ctx context.Context, q *queue, until conditions, most int) (n int, waited bool, err error) {
	waiting := &b.link.waiting[b.class()]
	waiting.Add(1)
	defer waiting.Add(-1)
	return q.pass(ctx, until, b.class(), b.client, most)
}

// update notes whether a client waits by now, and reports whether none does.
func (b *Body) update() (background bool) {
	select {
	case <-b.attended:
		b.background = false
	default:
	}
	return b.background
}

// backgroundTurn is Turn for a body that no client waits for. It does not outlast the hours.
func (b *Body) backgroundTurn(ctx context.Context, rules *state) (waited bool, err error) {
	now := time.Now()
	if err := rules.Closed(now); err != nil {
		return false, err
	}
	if !rules.Hours.always() {
		var cancel context.CancelFunc
		end := next(now, rules.Hours.To)
		ctx, cancel = context.WithDeadlineCause(ctx, end, &ClosedError{Until: next(end, rules.Hours.From)})
		defer cancel()
	}
	until := conditions{attended: b.attended, changed: rules.changed}
	n := math.MaxInt
	if rules.Background > 0 {
		if n, waited, err = b.pass(ctx, b.link.background, until, n); err != nil {
			return waited, err
		}
	}
	if rules.Rate > 0 {
		paid := n
		var late bool
		n, late, err = b.pass(ctx, b.link.whole, until, paid)
		waited = waited || late
		if rules.Background > 0 {
			b.link.background.refund(paid - n)
		}
		if err != nil {
			return waited, err
		}
	}
	if n < math.MaxInt { // else no rule bounds it
		b.credit, b.ofBoth = n, rules.Background > 0
	}
	return waited, nil
}

// Read reads as much as one turn allows for. Without [Body.Turn] before it, it waits for
// one.
func (b *Body) Read(p []byte) (int, error) {
	if _, err := b.Turn(b.ctx); err != nil {
		return 0, err
	}
	if b.credit > 0 {
		p = p[:min(len(p), b.credit)]
	}
	n, err := b.ReadCloser.Read(p)
	b.credit -= min(n, b.credit)
	b.link.bytes[b.class()].Add(int64(n))
	return n, err
}

// Close closes the body, and gives back what was paid for and not read.
func (b *Body) Close() error {
	if b.credit > 0 {
		b.link.whole.refund(b.credit)
	}
	if b.credit > 0 && b.ofBoth {
		b.link.background.refund(b.credit)
	}
	b.credit = 0
	return b.ReadCloser.Close()
}
