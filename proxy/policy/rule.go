package policy

import (
	"context"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/larder-registry/larder/upstream/name"
)

// Mode says what follows where the conditions of a rule do not hold.
type Mode string

// The modes.
const (
	Warn    Mode = "warn"    // the image is served, and it is said
	Enforce Mode = "enforce" // the image is refused
)

// Rule says which images of some repositories are served. It must not be changed after it was given
// to [Policy.Use]. A rule without conditions lets all of them through.
type Rule struct {
	Match name.Pattern
	Mode  Mode
	// Offline is how long a decision holds, since it was made, that cannot be made again.
	Offline time.Duration
	// Age is how old an image must be; 0 for any.
	Age time.Duration
	// Signed and Findings are conditions; nil for none. An image gets the former from an index that
	// names it. The latter is not asked of indexes, but of what they name.
	Signed   Condition
	Findings Condition
	// Basis is a digest of all that the rule says, and of the keys that it names. A decision of
	// another basis is made again.
	Basis string

	counted map[Result][]metric.AddOption // made once, since a hit must not make them
	counts  *counts                       // of the rules with this name and mode since the process was started
}

// Name returns the rule as people and metrics know it.
func (r *Rule) Name() string { return r.Match.String() }

// HasConditions reports whether the rule can refuse anything.
func (r *Rule) HasConditions() bool { return r.Age > 0 || r.Signed != nil || r.Findings != nil }

// maxRepositories bounds the repositories whose rule is remembered. Finding the rule of another one
// costs a look at all rules.
const maxRepositories = 4096

type repository struct{ host, name string }

// rules are those in use.
type rules struct {
	all  []*Rule
	seen *lru.Cache[repository, *Rule]
}

// Use replaces the rules. The first one that matches a repository counts. Decisions of rules whose
// basis is still in use stay.
func (p *Policy) Use(all []*Rule) {
	seen, _ := lru.New[repository, *Rule](maxRepositories) // it fails only for a size that is not positive
	for _, r := range all {
		r.counts = p.countsOf(r)
		r.counted = make(map[Result][]metric.AddOption)
		for _, result := range []Result{Allowed, Refused, Unknown} {
			r.counted[result] = []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(
				attribute.String("rule", r.Name()), attribute.String("mode", string(r.Mode)), attribute.String("result", string(result)),
			))}
			p.decisions.Add(context.Background(), 0, r.counted[result]...)
		}
	}
	p.rules.Store(&rules{all, seen})
}

// countsOf returns the counts of a rule: those of the rule in use that has its name and mode, if there is one.
func (p *Policy) countsOf(r *Rule) *counts {
	for _, before := range p.Rules() {
		if before.Match == r.Match && before.Mode == r.Mode {
			return before.counts
		}
	}
	return new(counts)
}

// Rules returns the rules in use. The caller must not change them.
func (p *Policy) Rules() []*Rule { return p.rules.Load().all }

// Rule returns the rule that covers a repository of a host in its canonical form; nil if there is
// none that could refuse anything. A nil Policy has no rules.
func (p *Policy) Rule(host, repo string) *Rule {
	if p == nil {
		return nil
	}
	in := p.rules.Load()
	if len(in.all) == 0 {
		return nil
	}
	id := repository{host, repo}
	if r, ok := in.seen.Get(id); ok {
		return r
	}
	var found *Rule
	for _, r := range in.all {
		if r.Match.Match(host, repo) {
			if r.HasConditions() {
				found = r
			}
			break
		}
	}
	in.seen.Add(id, found)
	return found
}
