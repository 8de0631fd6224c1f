package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/larder-registry/larder/proxy/attempts"
)

// Why says how a decision came about.
type Why string

const (
	// Upstream is that the upstream was asked.
	Upstream Why = "upstream"
	// Remembered is that the upstream was asked before.
	Remembered Why = "remembered"
	// Offline is that the upstream said yes before and cannot be asked now.
	Offline Why = "offline"
)

// ErrRefused is the error of a credential that the upstream refuses. It is fs.ErrPermission.
var ErrRefused = fmt.Errorf("the upstream refuses the client's credentials: %w", fs.ErrPermission)

// Right is what a credential may do in a repository. Registries have rights of their own for
// each: at ECR, one that lists tags may not pull.
type Right string

const (
	// Pull is to have manifests, and with them all that the repository has.
	Pull Right = ""
	// PullBlobs is to have blobs.
	PullBlobs Right = "blobs"
	// List is to have the list of tags.
	List Right = "list"
	// Login is to be known to the upstream. A yes holds for all repositories of the upstream, and a
	// no for the one that was asked about: some token services refuse a login by its scope.
	Login Right = "login"
)

// subject is what a decision is about: a right of a credential in a repository. The repository of a
// yes to Login has no name.
type subject struct {
	Repository
	right      Right
	credential Hash
}

// wider returns the subject whose yes is one to s, too, and false if there is none.
func (s subject) wider() (subject, bool) {
	switch s.right {
	case PullBlobs:
		s.right = Pull
		return s, true
	case Login:
		s.Name = ""
		return s, true
	}
	return s, false
}

// flight is the key of a question after so many calls of Forget: those with another key do not
// share its answer.
func (s subject) flight(forgets int, reference string) string {
	return fmt.Sprintf("%s %s %s %d %s", s.Repository, s.right, s.credential, forgets, reference)
}

// Question asks an upstream whether a credential may pull from a repository.
type Question struct {
	Credential Credential
	Repository Repository
	Right      Right
	// Reference is what is asked about. Questions about another one of the same repository are
	// not answered by it if the upstream does not have it.
	Reference string
	// From is the network of the client. One that tries too many credentials which the upstream
	// refuses has it asked about those alone that it has accepted before.
	From netip.Prefix
	// Ask asks the upstream with the credential, or with a token that the upstream has issued for
	// it since a time. It must end by itself, as its context is not that of a client. An error that
	// is fs.ErrPermission is a no. One that is fs.ErrNotExist decides nothing. Any other says that the upstream could not be asked.
	Ask func(ctx context.Context, since time.Time) error
}

// maxTokenAge is how long before a question a token of the upstream may have been issued: the one
// with which the client has logged in is good. Older ones may have rights that were taken away.
const maxTokenAge = 10 * time.Second

const (
	// burst is how many credentials that an upstream refuses a client may try at once, and refill
	// after how long it may try one more. A node starts the pods of some dozens of secrets at once.
	burst  = 64
	refill = time.Second
)

// ErrTooMany is the error of a credential about which the upstream is not asked.
var ErrTooMany = errors.New("too many credentials that it refuses come from this address: try again in some seconds")

// Decide returns nil if the upstream gives the credential the right. The error is ErrRefused, ErrTooMany or
// that of Question.Ask. Callers that want the same decision share one question.
func (g *Gate) Decide(ctx context.Context, q Question) (Why, error) {
	s := subject{q.Repository, q.Right, g.opts.Key.hash(q.Repository.Upstream, q.Credential)}
	for key := ""; ; key = q.Reference {
		forgets, why, err := g.remembered(s, q)
		if why != "" {
			return why, err
		}
		got := g.flights.DoChan(s.flight(forgets, key), func() (any, error) {
			return q.Reference, g.ask(context.WithoutCancel(ctx), s, q, forgets)
		})
		select {
		case r := <-got:
			if r.Err != nil && !errors.Is(r.Err, ErrRefused) && r.Val.(string) != q.Reference {
				continue // the upstream has decided nothing about what another client asked for
			}
			return g.settle(s, q, forgets, r.Err)
		case <-ctx.Done():
			return Upstream, context.Cause(ctx)
		}
	}
}

// remembered returns a decision that holds, or "" for why if there is none. A question that is
// asked instead is asked after so many calls of Forget.
func (g *Gate) remembered(s subject, q Question) (forgets int, why Why, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch now := time.Now(); {
	case g.answers.allows(s, now, g.opts.Recheck):
		g.accept(q)
		return g.forgets, Remembered, nil
	case g.answers.refuses(s, now, g.opts.Negative):
		return g.forgets, Remembered, ErrRefused
	}
	return g.forgets, "", nil
}

// ask asks the upstream, and remembers its answer unless Forget was called meanwhile.
func (g *Gate) ask(ctx context.Context, s subject, q Question, forgets int) error {
	end, ok := g.try(s, q)
	if !ok {
		return fmt.Errorf("ask %s about the client's credentials: %w", q.Repository.Upstream, ErrTooMany)
	}
	asked := time.Now()
	g.mu.Lock()
	since := asked.Add(-maxTokenAge)
	if g.forgot.After(since) {
		since = g.forgot
	}
	g.mu.Unlock()
	err := q.Ask(ctx, since)
	refused := errors.Is(err, fs.ErrPermission)
	end(refused)
	switch {
	case err == nil:
		g.remember(s, q, true, asked, forgets)
	case refused:
		g.remember(s, q, false, time.Now(), forgets)
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// try is [attempts.Bound.Begin] for a credential that the upstream is not known to have accepted.
func (g *Gate) try(s subject, q Question) (end func(wrong bool), ok bool) {
	g.mu.Lock()
	known := g.answers.allowsSome(s, time.Now(), math.MaxInt64)
	g.mu.Unlock()
	if known || q.Credential == (Credential{}) {
		return func(bool) {}, true
	}
	return g.wrong.Begin(q.From, attempts.ID(s.credential))
}

// settle returns what an upstream's answer means for one client.
func (g *Gate) settle(s subject, q Question, forgets int, err error) (Why, error) {
	switch {
	case err == nil:
	case errors.Is(err, ErrRefused), isUndecided(err), !g.believes(s):
		return Upstream, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if forgets == g.forgets {
		g.accept(q)
	}
	if err != nil {
		return Offline, nil
	}
	return Upstream, nil
}

// accept keeps a credential that may pull. The caller has locked g.mu.
func (g *Gate) accept(q Question) {
	if q.Right == Pull || q.Right == PullBlobs {
		g.accepted.add(q.Repository, q.Credential, time.Now())
	}
}

// believes reports whether a yes is believed while the upstream cannot be asked. A login is, if a
// right of the same credential is.
func (g *Gate) believes(s subject) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.right == Login {
		return g.answers.allowsSome(s, time.Now(), g.opts.Offline)
	}
	return g.answers.allows(s, time.Now(), g.opts.Offline)
}

// isUndecided reports whether an error says nothing about the credential: the upstream has no
// such manifest.
func isUndecided(err error) bool {
	var postponed interface{ Postponed() bool }
	return errors.Is(err, fs.ErrNotExist) && (!errors.As(err, &postponed) || !postponed.Postponed())
}

// MayPull reports whether the upstream has let a credential pull from one of these repositories, and
// whether that still holds. It asks nothing.
func (g *Gate) MayPull(c Credential, repositories ...Repository) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(repositories, func(repo Repository) bool {
		return g.answers.allows(subject{repo, Pull, g.opts.Key.hash(repo.Upstream, c)}, time.Now(), g.opts.Recheck)
	})
}

// Accepted returns the credentials that the upstream has let pull from a repository, the latest
// first. There are a few at most, and none after a restart.
func (g *Gate) Accepted(repo Repository) []Credential {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.accepted.of(repo, time.Now())
}

// remember adds what an upstream said at a time, unless Forget was called since it was asked.
func (g *Gate) remember(s subject, q Question, allowed bool, at time.Time, forgets int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if forgets != g.forgets {
		return // the answer may be from before that
	}
	one := answer{q.Credential.User(), at}
	if allowed {
		if w, ok := s.wider(); ok && q.Right == Login {
			s = w
		}
		g.answers.allow(s, one)
		g.changed.Store(true)
		return
	}
	if g.answers.refuse(s, one) {
		g.changed.Store(true)
	}
	if s.right == Pull {
		g.accepted.drop(q.Repository, q.Credential)
	}
}

// Refused notes that the upstream has refused something to a credential that it had given the right
// to it. The upstream is asked anew before the client gets something by that right, and the
// credential is not used for others until then.
func (g *Gate) Refused(repo Repository, c Credential, right Right) {
	s := subject{repo, right, g.opts.Key.hash(repo.Upstream, c)}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.answers.end(s) {
		g.changed.Store(true)
	}
	if right != List {
		g.accepted.drop(repo, c)
	}
}
