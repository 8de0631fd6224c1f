package access

import (
	"cmp"
	"slices"
	"time"
)

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
	all := []Decision{}
	g.mu.Lock()
	g.answers.each(func(s subject, one answer, allowed bool) {
		all = append(all, Decision{s.Upstream, s.Name, s.right, one.user, s.credential.String()[:shownHash], allowed, one.at})
	})
	g.mu.Unlock()
	slices.SortFunc(all, func(a, b Decision) int {
		return cmp.Or(cmp.Compare(a.Upstream, b.Upstream), cmp.Compare(a.Repository, b.Repository),
			cmp.Compare(a.User, b.User), cmp.Compare(a.Right, b.Right), cmp.Compare(a.Credential, b.Credential))
	})
	return all
}

// Forget drops the decisions that match is true for, together with the credentials that were
// accepted for them, and returns how many decisions these were. The upstream is asked again about
// what clients want next; the answer to a question that is being asked is not remembered. It
// returns when that holds for the next process too; an error says that it does not yet.
func (g *Gate) Forget(match func(upstream, user string) bool) (int, error) {
	g.mu.Lock()
	g.forgets++
	g.forgot = time.Now()
	forgotten := g.answers.forget(func(s subject, one answer) bool { return match(s.Upstream, one.user) })
	g.accepted.dropIf(func(repo Repository, c Credential) bool { return match(repo.Upstream, c.User()) })
	g.mu.Unlock()
	if forgotten > 0 {
		g.changed.Store(true)
	}
	return forgotten, g.save()
}
