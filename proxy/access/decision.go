package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
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

// decision is what an upstream said. One of the times is set.
type decision struct {
	user      string
	confirmed time.Time // when it said yes
	refused   time.Time // when it said no
}

// Question asks an upstream whether a credential may pull from a repository.
type Question struct {
	Credential Credential
	Repository Repository
	Right      Right
	// Reference is what is asked about. Questions about another one of the same repository are
	// not answered by it if the upstream does not have it.
	Reference string
	// Ask asks the upstream with the credential, or with a token that the upstream has issued for
	// it since a time. It must end by itself, as its context is not that of a client. An error that
	// is fs.ErrPermission is a no. One that is fs.ErrNotExist decides nothing. Any other says that the upstream could not be asked.
	Ask func(ctx context.Context, since time.Time) error
}

// maxTokenAge is how long before a question a token of the upstream may have been issued: the one
// with which the client has logged in is good. Older ones may have rights that were taken away.
const maxTokenAge = 10 * time.Second

// Decide returns nil if the upstream gives the credential the right. The error is ErrRefused, or
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
	now := g.now()
	known, _ := g.decisions.Get(s)
	if w, ok := s.wider(); ok && !known.holds(now, g.opts.Recheck) {
		if yes, _ := g.decisions.Get(w); yes.holds(now, g.opts.Recheck) {
			known = yes
		}
	}
	switch {
	case known.holds(now, g.opts.Recheck):
		g.accept(q)
		return g.forgets, Remembered, nil
	case !known.refused.IsZero() && within(now, known.refused, g.opts.Negative):
		return g.forgets, Remembered, ErrRefused
	}
	return g.forgets, "", nil
}

// holds reports whether an upstream said yes, not longer ago than life.
func (d decision) holds(now time.Time, life time.Duration) bool {
	return !d.confirmed.IsZero() && within(now, d.confirmed, life)
}

// within reports whether something holds that an upstream said at a time. A time in the future
// comes from a clock that was wrong.
func within(now, at time.Time, life time.Duration) bool {
	age := now.Sub(at)
	return 0 <= age && age < life
}

// ask asks the upstream, and remembers its answer unless Forget was called meanwhile.
func (g *Gate) ask(ctx context.Context, s subject, q Question, forgets int) error {
	asked := g.now()
	g.mu.Lock()
	since := asked.Add(-maxTokenAge)
	if g.forgot.After(since) {
		since = g.forgot
	}
	g.mu.Unlock()
	err := q.Ask(ctx, since)
	switch {
	case err == nil:
		if q.Right == Login {
			s, _ = s.wider()
		}
		g.remember(s, q, decision{user: q.Credential.User(), confirmed: asked}, forgets)
	case errors.Is(err, fs.ErrPermission):
		g.remember(s, q, decision{user: q.Credential.User(), refused: g.now()}, forgets)
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
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
		g.accepted.add(q.Repository, q.Credential, g.now())
	}
}

// believes reports whether a yes is believed while the upstream cannot be asked.
func (g *Gate) believes(s subject) bool {
	if g.known(s).holds(g.now(), g.opts.Offline) {
		return true
	}
	w, ok := s.wider()
	return ok && g.known(w).holds(g.now(), g.opts.Offline)
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
	return slices.ContainsFunc(repositories, func(repo Repository) bool {
		return g.known(subject{repo, Pull, g.opts.Key.hash(repo.Upstream, c)}).holds(g.now(), g.opts.Recheck)
	})
}

// Accepted returns the credentials that the upstream has let pull from a repository, the latest
// first. There are a few at most, and none after a restart.
func (g *Gate) Accepted(repo Repository) []Credential {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.accepted.of(repo, g.now())
}

func (g *Gate) known(s subject) decision {
	g.mu.Lock()
	defer g.mu.Unlock()
	d, _ := g.decisions.Get(s)
	return d
}

func (g *Gate) remember(s subject, q Question, d decision, forgets int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if forgets != g.forgets {
		return // the answer may be from before that
	}
	g.decisions.Add(s, d)
	g.changed.Store(true)
	if d.confirmed.IsZero() && s.right == Pull {
		g.accepted.drop(q.Repository, q.Credential)
	}
}

// Refused notes that the upstream has refused something to a credential that it had given the right
// to it. The upstream is asked anew before the client gets something by that right, and the
// credential is not used for others until then.
func (g *Gate) Refused(repo Repository, c Credential, right Right) {
	rights := []Right{List}
	if right != List {
		rights = []Right{Pull, PullBlobs} // as a yes to the first is one to the second
	}
	hash := g.opts.Key.hash(repo.Upstream, c)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, right := range rights {
		s := subject{repo, right, hash}
		if d, _ := g.decisions.Peek(s); !d.confirmed.IsZero() {
			g.decisions.Remove(s)
			g.changed.Store(true)
		}
	}
	if right != List {
		g.accepted.drop(repo, c)
	}
}

// Decision is a decision for people. It has no secret.
type Decision struct {
	Upstream   string    `json:"upstream"`
	Repository string    `json:"repository"` // "" for all of the upstream, of a login that it knows
	Right      Right     `json:"right"`
	User       string    `json:"user"`       // "" for an anonymous client, and for an identity token
	Credential string    `json:"credential"` // the beginning of its hash, which tells credentials apart
	Allowed    bool      `json:"allowed"`
	At         time.Time `json:"at"` // when the upstream said so
}

// shownHash is how many digits of a hash are shown.
const shownHash = 12

// Decisions lists what is remembered, sorted by upstream, repository and user.
func (g *Gate) Decisions() []Decision {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]Decision, 0, g.decisions.Len())
	for _, s := range g.decisions.Keys() {
		d, _ := g.decisions.Peek(s)
		one := Decision{s.Upstream, s.Name, s.right, d.user, s.credential.String()[:shownHash], true, d.confirmed}
		if d.confirmed.IsZero() {
			one.Allowed, one.At = false, d.refused
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Decision) int {
		return cmp.Or(cmp.Compare(a.Upstream, b.Upstream), cmp.Compare(a.Repository, b.Repository),
			cmp.Compare(a.User, b.User), cmp.Compare(a.Right, b.Right), cmp.Compare(a.Credential, b.Credential))
	})
	return all
}

// Forget drops the decisions that match is true for, together with the credentials that were
// accepted for them, and returns how many decisions these were. The upstream is asked again about
// what clients want next; the answer to a question that is being asked is not remembered. It
// returns when that holds for the next process too.
func (g *Gate) Forget(match func(upstream, user string) bool) int {
	forgotten := 0
	g.mu.Lock()
	g.forgets++
	g.forgot = g.now()
	for _, s := range g.decisions.Keys() {
		if d, _ := g.decisions.Peek(s); match(s.Upstream, d.user) {
			g.decisions.Remove(s)
			forgotten++
		}
	}
	g.accepted.dropIf(func(repo Repository, c Credential) bool { return match(repo.Upstream, c.User()) })
	g.mu.Unlock()
	if forgotten > 0 {
		g.changed.Store(true)
	}
	g.save()
	return forgotten
}
