package upstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/reply"
)

// group is a registry and its replicas, the registry first.
//
// Replication copies repositories to other regions under the same names (ECR user
// guide, "Private image replication"). A copy may be late, or incomplete. So a
// replica is asked only for content with a known digest, never for a tag, and only
// its success counts: the registry itself decides that something does not exist or
// is denied.
type group []*member

func (g group) primary() *member    { return g[0] }
func (g group) replicas() []*member { return g[1:] }

// shortPatience bounds the time for a registry that has failed, if another one may
// answer.
const shortPatience = 3 * time.Second

// manifest fetches a manifest by digest from any member, and by tag from the
// registry itself.
func (g group) manifest(ctx context.Context, m manifestRequest) (manifest, error) {
	if len(g) == 1 {
		return g.primary().documents.manifest(ctx, m)
	}
	if _, err := digest.Parse(m.reference); err != nil {
		got, err := g.primary().documents.manifest(ctx, m)
		if !reply.CallerLeft(ctx) {
			g.primary().settle(err, false) // a tag's answer, too, shows that the registry is back
		}
		return got, err
	}
	got, done, err := askAny(ctx, g, false, func(ctx context.Context, at *member) (manifest, error) {
		return at.documents.manifest(ctx, m)
	})
	if err != nil {
		return manifest{}, err
	}
	done()
	return got, nil
}

// blobSize asks any member for a blob's size.
func (g group) blobSize(ctx context.Context, repository string, dgst digest.Digest) (int64, error) {
	if len(g) == 1 {
		return g.primary().blobs.size(ctx, repository, dgst)
	}
	size, done, err := askAny(ctx, g, false, func(ctx context.Context, at *member) (int64, error) {
		return at.blobs.size(ctx, repository, dgst)
	})
	if err != nil {
		return 0, err
	}
	done()
	return size, nil
}

// openBlob opens a range of a blob at any member.
func (g group) openBlob(ctx context.Context, repository string, dgst digest.Digest, part Range) (Content, error) {
	if len(g) == 1 {
		return g.primary().blobs.open(ctx, repository, dgst, part)
	}
	content, done, err := askAny(ctx, g, part.Spare, func(ctx context.Context, at *member) (Content, error) {
		return at.blobs.open(ctx, repository, dgst, part)
	})
	if err != nil {
		return Content{}, err
	}
	content.Body = &body{content.Body, done}
	return content, nil
}

// askAny asks the members in turn for content that each copy can give. The result
// can be used until done is called; with an error, done is nil.
func askAny[T any](ctx context.Context, g group, spare bool, ask func(context.Context, *member) (T, error)) (got T, done func(), err error) {
	queue := newAttempts(g)
	failed := failures{primary: g.primary()}
	for ctx.Err() == nil {
		a, ok := queue.next()
		if !ok {
			break
		}
		got, done, err = within(ctx, queue.patience(a, g.primary().timeout), func(ctx context.Context) (T, error) { return ask(ctx, a.member) })
		if reply.CallerLeft(ctx) || spare && reply.IsThrottled(err) { // it says nothing about the member
			a.breaker.Abandoned(a.probe)
			return got, done, err
		}
		a.settle(err, a.probe)
		if g.isFinal(a.member, err) {
			return got, done, err
		}
		failed.add(a.member, err)
	}
	return got, nil, failed.error(ctx)
}

// isFinal reports whether no other member is asked after an answer: a success, or
// any answer of the registry itself that is no outage. A replica's 404 or denial
// does not count.
func (g group) isFinal(at *member, err error) bool {
	return err == nil || at == g.primary() && !isOutage(err)
}

// attempts is the order in which members are asked: the ones that are known to fail
// come last.
type attempts struct {
	left []*member
	last []*member // their breakers are open
}

// attempt is a request to one member.
type attempt struct {
	*member
	probe      bool // whether the member answers again
	lastResort bool // the member is known to fail, and no other one answered
}

// newAttempts leaves out replicas that are offline.
func newAttempts(g group) *attempts {
	a := new(attempts)
	for _, m := range g {
		if m == g.primary() || m.gate.Check() == nil {
			a.left = append(a.left, m)
		}
	}
	return a
}

// next returns the next attempt, and false if every member was asked.
func (a *attempts) next() (attempt, bool) {
	for len(a.left) > 0 {
		m := a.left[0]
		a.left = a.left[1:]
		if admitted, probe := m.breaker.Enter(); admitted {
			return attempt{member: m, probe: probe}, true
		}
		a.last = append(a.last, m)
	}
	if len(a.last) == 0 {
		return attempt{}, false
	}
	m := a.last[0]
	a.last = a.last[1:]
	return attempt{member: m, lastResort: true}, true
}

// patience returns how long to wait for an attempt, of a client's whole timeout.
func (a *attempts) patience(of attempt, timeout time.Duration) time.Duration {
	switch {
	case of.probe, of.lastResort:
		return min(shortPatience, timeout/2)
	case len(a.left)+len(a.last) > 0:
		return timeout / 2 // leaves time for the others
	}
	return timeout
}

// within bounds how long an answer takes. The result can be used until done is
// called; with an error, done is nil.
func within[T any](ctx context.Context, patience time.Duration, ask func(context.Context) (T, error)) (got T, done func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(patience, func() { cancel(reply.ErrTimeout) })
	defer timer.Stop()
	if got, err = ask(ctx); err != nil {
		cancel(nil)
		return got, nil, err
	}
	return got, func() { cancel(nil) }, nil
}

// failures collects the errors of the members.
type failures struct {
	primary     *member
	own, others error
}

func (f *failures) add(at *member, err error) {
	if at == f.primary {
		f.own = err
		return
	}
	f.others = errors.Join(f.others, fmt.Errorf("replica %s: %w", at.host, err))
}

// error returns the error for a caller that waited with ctx.
func (f *failures) error(ctx context.Context) error {
	own := f.own
	switch {
	case own == nil: // ctx ended before its turn
		own = fmt.Errorf("ask %s: %w", f.primary.host, context.Cause(ctx))
	case f.others == nil:
		return own
	}
	return &outageError{own, f.others}
}

// outageError is the error if neither a registry nor a replica answered. It unwraps
// to that of the registry itself; the others are for people.
type outageError struct {
	own, others error
}

func (e *outageError) Error() string { return fmt.Sprintf("%v; %v", e.own, e.others) }
func (e *outageError) Unwrap() error { return e.own }
