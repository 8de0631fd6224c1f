package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"golang.org/x/sync/singleflight"
)

// Options are the settings of a [Policy].
type Options struct {
	// File is where decisions are kept for the next process; "" means nowhere.
	File string
	// Pushed returns when a registry says that an image was pushed, and false if it does not tell.
	// An error says that it cannot be asked now. Nil means that none tells.
	Pushed func(ctx context.Context, image Image) (at time.Time, ok bool, err error)
	// Seen returns since when the image is here, and false if it is not known. Nil means that it
	// never is: then an image is seen first when it is first asked for.
	Seen func(image Image) (time.Time, bool)
	// Meter provides the instruments. Nil means that nothing is measured.
	Meter metric.MeterProvider
	// Log is where the policy reports. Nil means slog.Default().
	Log *slog.Logger
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Content tells what images are.
type Content interface {
	// Naming returns the manifests of the image's repository that name it, as far as they are known.
	Naming(image Image) []Image
	// Manifest returns the document of an image.
	Manifest(ctx context.Context, image Image) ([]byte, error)
	// IsText reports whether a blob of the image's repository is text, as far as it is small.
	IsText(ctx context.Context, image Image, blob digest.Digest) (bool, error)
}

const (
	// maxDecisions bounds the decisions that are remembered: a node has some hundred images, a
	// shared cache some thousand.
	maxDecisions = 16384
	// decideWithin bounds the making of a decision. containerd waits 10 s for a verifier.
	decideWithin = 20 * time.Second
	// refusedFor is how long a refusal holds that no condition puts a time to: the image may be
	// signed a moment later.
	refusedFor = time.Minute
	// unknownFor is for how long what could not be decided is not tried again, so that an upstream
	// that throttles is not asked by each client.
	unknownFor = 5 * time.Second
	// standsFor is for how long a decision is not tried to be made again that still stands.
	standsFor = time.Minute
	// maxIndexes bounds the indexes that are looked at for one image.
	maxIndexes = 16
)

// RetryAfter is when a decision that is [Unknown] may be there.
const RetryAfter = unknownFor

// Policy decides about images. Its methods are safe for concurrent use, except that one goroutine at
// a time calls Use.
type Policy struct {
	opts      Options
	now       func() time.Time
	log       *slog.Logger
	decisions metric.Int64Counter
	rules     atomic.Pointer[rules]
	flights   singleflight.Group
	file      sync.Mutex // serializes writes of the file
	changed   atomic.Bool

	mu     sync.Mutex // guards what follows
	known  *simplelru.LRU[subject, *Decision]
	denied *simplelru.LRU[subject, denied] // that clients asked for
}

// subject is what a decision is about. The rule follows from it.
type subject struct {
	repository
	digest digest.Digest
}

func subjectOf(image Image) subject {
	return subject{repository{image.Host, image.Repository}, image.Digest}
}

// New returns a policy without rules, with the decisions of an earlier process. [Policy.Run] keeps
// them up to date.
func New(opts Options) (*Policy, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.Meter == nil {
		opts.Meter = noop.NewMeterProvider()
	}
	known, _ := simplelru.NewLRU[subject, *Decision](maxDecisions, nil) // it fails only for a size that is not positive
	p := &Policy{opts: opts, now: opts.Now, log: opts.Log, known: known, denied: newDenied()}
	p.rules.Store(&rules{})
	var err error
	p.decisions, err = opts.Meter.Meter("github.com/larder-registry/larder/proxy/policy").Int64Counter("larder.policy.decisions",
		metric.WithUnit("{decision}"), metric.WithDescription("Requests for manifests that a policy has decided, by rule, mode and result."))
	if err != nil {
		return nil, fmt.Errorf("set up metrics: %w", err)
	}
	p.load()
	return p, nil
}

// Known returns the decision of a rule about an image, if it still holds; nil if it must be made. It is
// the way of a hit.
func (p *Policy) Known(r *Rule, image Image) *Decision {
	p.mu.Lock()
	d, ok := p.known.Get(subjectOf(image))
	p.mu.Unlock()
	if ok && d.holdsAt(p.now(), r) {
		return d
	}
	return nil
}

// Decide returns the decision of a rule about an image. Callers that ask at the same time share its
// making, which goes on when one of them leaves. The error is that of ctx.
func (p *Policy) Decide(ctx context.Context, r *Rule, image Image, content Content) (*Decision, error) {
	if d := p.Known(r, image); d != nil {
		return d, nil
	}
	key := r.Basis + " " + image.Host + "/" + image.Repository + "@" + image.Digest.String()
	got := p.flights.DoChan(key, func() (any, error) {
		if d := p.Known(r, image); d != nil {
			return d, nil // another one's has come since this one looked
		}
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), decideWithin, errSlow)
		defer cancel()
		return p.decide(ctx, r, image, content), nil
	})
	select {
	case result := <-got:
		return result.Val.(*Decision), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

var errSlow = errors.New("the conditions were not decided in time")

// decide makes a decision and remembers it.
func (p *Policy) decide(ctx context.Context, r *Rule, image Image, content Content) *Decision {
	now := p.now()
	before := p.last(image)
	d := &Decision{
		Host: image.Host, Repository: image.Repository, Digest: image.Digest,
		Rule: r.Name(), Mode: r.Mode, At: now, Seen: p.seen(image, before, now), basis: r.Basis,
	}
	exempt, err := isAttachment(ctx, image, content)
	switch {
	case err != nil:
		d.add(Verdict{Condition: "exempt", Result: Unknown, Reason: "what it is cannot be read: " + err.Error()})
	case exempt:
		d.Exempt = true
	default:
		p.ask(ctx, r, image, d, content)
	}
	d.settle()
	if d.Result == Unknown && before != nil && before.mayStand(now, r) {
		stands := *before
		stands.Mode, stands.Until, stands.Stands = r.Mode, now.Add(standsFor), d.Why()
		d = &stands
	}
	p.remember(d)
	p.report(before, d)
	return d
}

// mayStand reports whether a decision holds that cannot be made again.
func (d *Decision) mayStand(now time.Time, r *Rule) bool {
	return d.basis == r.Basis && d.Result != Unknown && now.Sub(d.At) < r.Offline
}

// ask asks the conditions of a rule.
func (p *Policy) ask(ctx context.Context, r *Rule, image Image, d *Decision, content Content) {
	if r.Signed != nil || r.Age > 0 {
		inherited, undecided := p.inherit(ctx, r, image, d, content)
		if !inherited {
			p.askEntry(ctx, r, image, d)
		}
		if undecided != "" {
			d.leaveOpen(undecided)
		}
	}
	if r.Findings != nil && !isIndex(image.MediaType) {
		d.evaluate(ctx, findings, r.Findings, image)
	}
}

// askEntry asks the conditions of an image by which a pull enters.
func (p *Policy) askEntry(ctx context.Context, r *Rule, image Image, d *Decision) {
	if r.Signed != nil {
		d.evaluate(ctx, signed, r.Signed, image)
	}
	if r.Age > 0 {
		d.evaluate(ctx, age, ageCondition{p, r.Age, d.Seen}, image)
	}
}

// inherit reports whether an allowed index names the image, which gets the conditions of the
// entry from it. If there is none, undecided is an index that cannot be decided now.
func (p *Policy) inherit(ctx context.Context, r *Rule, image Image, d *Decision, content Content) (inherited bool, undecided digest.Digest) {
	for i, index := range content.Naming(image) {
		switch {
		case i == maxIndexes:
			return false, undecided
		case !isIndex(index.MediaType):
			continue
		}
		above, err := p.Decide(ctx, r, index, content)
		if err != nil || above.Result == Unknown {
			undecided = index.Digest
			continue
		}
		if above.Result != Allowed || above.Exempt {
			continue
		}
		d.Via = index.Digest
		d.limit(above.Until)
		for _, v := range above.Conditions {
			if v.Condition != findings {
				d.add(Verdict{v.Condition, Allowed, "the index " + index.Digest.String() + " is allowed and names it", v.Basis})
			}
		}
		return true, ""
	}
	return false, undecided
}

// leaveOpen turns refusals into what cannot be decided now: an index that names the image may allow it.
func (d *Decision) leaveOpen(index digest.Digest) {
	for i, v := range d.Conditions {
		if v.Result == Refused {
			d.Conditions[i].Result = Unknown
			d.Conditions[i].Reason = v.Reason + "; the index " + index.String() + " names it and cannot be decided now"
		}
	}
}

// evaluate adds what a condition says.
func (d *Decision) evaluate(ctx context.Context, condition string, c Condition, image Image) {
	answer, err := c.Evaluate(ctx, image)
	switch {
	case err != nil:
		d.add(Verdict{Condition: condition, Result: Unknown, Reason: err.Error()})
		return
	case answer.Holds:
		d.add(Verdict{condition, Allowed, answer.Reason, answer.Basis})
	default:
		d.add(Verdict{condition, Refused, answer.Reason, answer.Basis})
	}
	d.limit(answer.Until)
}

func (d *Decision) add(v Verdict) { d.Conditions = append(d.Conditions, v) }

// limit has a decision made again at a time; zero for never.
func (d *Decision) limit(until time.Time) {
	if !until.IsZero() && (d.Until.IsZero() || until.Before(d.Until)) {
		d.Until = until
	}
}

// settle sets the result: an image is refused if one condition says so, whatever the others do.
func (d *Decision) settle() {
	d.Result = Allowed
	for _, v := range d.Conditions {
		if v.Result == Refused || v.Result == Unknown && d.Result == Allowed {
			d.Result = v.Result
		}
	}
	switch {
	case d.Result == Unknown:
		d.Until = d.At.Add(unknownFor)
	case d.Result == Refused && d.Until.IsZero():
		d.Until = d.At.Add(refusedFor)
	}
}

// seen returns when an image was first asked for.
func (p *Policy) seen(image Image, before *Decision, now time.Time) time.Time {
	first := now
	if before != nil && before.Seen.Before(first) {
		first = before.Seen
	}
	if p.opts.Seen != nil {
		if at, ok := p.opts.Seen(image); ok && at.Before(first) {
			first = at
		}
	}
	return first
}

// last returns the last decision about an image, of whichever rule; nil if there is none.
func (p *Policy) last(image Image) *Decision {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, _ := p.known.Peek(subjectOf(image))
	return d
}

func (p *Policy) remember(d *Decision) {
	p.mu.Lock()
	p.known.Add(subject{repository{d.Host, d.Repository}, d.Digest}, d)
	p.mu.Unlock()
	p.changed.Store(true)
}

// report logs a decision that is news and that somebody may want to act on.
func (p *Policy) report(before, d *Decision) {
	if before != nil && before.Result == d.Result && before.Stands == d.Stands && before.Why() == d.Why() {
		return
	}
	attrs := []any{"rule", d.Rule, "mode", d.Mode, "repository", d.Host + "/" + d.Repository, "digest", d.Digest, "reason", d.Why()}
	switch {
	case d.Stands != "":
		p.log.Warn("a policy cannot be decided again now; the last decision stands", append(attrs, "result", d.Result, "decided", d.At, "cause", d.Stands)...)
	case d.Result == Refused && d.Mode == Warn:
		p.log.Warn("a policy would refuse an image, which is served as its mode is warn", attrs...)
	case d.Result == Refused && before != nil && before.Result == Allowed:
		p.log.Warn("a policy refuses an image that it allowed before", attrs...)
	case d.Result != Allowed:
		p.log.Warn("a policy does not allow an image", append(attrs, "result", d.Result)...)
	}
}

// Last returns the last decision about an image of the rule that covers it now; nil if there is none. It may have to be made
// again. A nil Policy has decided nothing.
func (p *Policy) Last(image Image) *Decision {
	r := p.Rule(image.Host, image.Repository)
	if r == nil {
		return nil
	}
	d := p.last(image)
	if d == nil || d.basis != r.Basis {
		return nil
	}
	now := *d
	now.Rule, now.Mode = r.Name(), r.Mode
	return &now
}

// Decisions returns what is remembered of the rules in use, sorted by image.
func (p *Policy) Decisions() []Decision {
	p.mu.Lock()
	known := p.known.Values()
	p.mu.Unlock()
	all := make([]Decision, 0, len(known))
	for _, d := range known {
		if r := p.Rule(d.Host, d.Repository); r != nil && r.Basis == d.basis {
			one := *d
			one.Rule, one.Mode = r.Name(), r.Mode
			all = append(all, one)
		}
	}
	slices.SortFunc(all, func(a, b Decision) int {
		return strings.Compare(a.Host+"/"+a.Repository+"@"+a.Digest.String(), b.Host+"/"+b.Repository+"@"+b.Digest.String())
	})
	return all
}
