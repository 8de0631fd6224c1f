package policy

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// maxDenied bounds the images that are listed as not allowed. A team that begins with mode warn has some hundred.
const maxDenied = 1024

// Denied is an image that clients asked for and that its rule does not allow. In mode enforce they did not get it; in
// mode warn they did.
type Denied struct {
	Decision            // the last one that did not allow it
	Reference string    `json:"reference"` // the tag or digest of the last request
	Requests  int64     `json:"requests"`
	Last      time.Time `json:"last"`
}

// counts are the requests that a rule has decided, by result. They are counted without a lock.
type counts struct{ allowed, refused, unknown atomic.Int64 }

func (c *counts) of(r Result) *atomic.Int64 {
	switch r {
	case Refused:
		return &c.refused
	case Unknown:
		return &c.unknown
	case Allowed:
	}
	return &c.allowed
}

// RuleStatus is what a rule has come to since the process was started.
type RuleStatus struct {
	Rule    string `json:"rule"`
	Mode    Mode   `json:"mode"`
	Allowed int64  `json:"allowed"` // requests for manifests, as the others are
	Refused int64  `json:"refused"` // in mode warn they were served
	Unknown int64  `json:"unknown"`
	Denied  int    `json:"denied"` // images that it does not allow
}

// Asked counts a request for an image that a rule has decided, and notes an image that it does not allow.
// reference is the tag or the digest of the request.
func (p *Policy) Asked(r *Rule, d *Decision, reference string) {
	p.decisions.Add(context.Background(), 1, r.counted[d.Result]...)
	r.counts.of(d.Result).Add(1)
	if d.Result == Allowed {
		return
	}
	id := subject{repository{d.Host, d.Repository}, d.Digest}
	p.mu.Lock()
	defer p.mu.Unlock()
	entry := denied{Denied{*d, reference, 1, p.now()}}
	before, ok := p.denied.Peek(id)
	entry.Requests += before.Requests
	p.denied.Add(id, entry)
	if !ok { // the file has the number of requests of its last write: it is not written for each
		p.changed.Store(true)
	}
}

// denied is a Denied with the basis of its rule.
type denied struct{ Denied }

func newDenied() *simplelru.LRU[subject, denied] {
	all, _ := simplelru.NewLRU[subject, denied](maxDenied, nil) // it fails only for a size that is not positive
	return all
}

// Denied returns the images that clients asked for and that the rules in use do not allow, the latest first. One that was
// allowed since is left out.
func (p *Policy) Denied() []Denied {
	p.mu.Lock()
	noted := p.denied.Values()
	allowed := make(map[subject]string)
	for _, d := range noted {
		if last, ok := p.known.Peek(subjectOf(d.image())); ok && last.Result == Allowed {
			allowed[subjectOf(d.image())] = last.basis
		}
	}
	p.mu.Unlock()
	all := []Denied{}
	for _, d := range slices.Backward(noted) {
		r := p.Rule(d.Host, d.Repository)
		if r == nil || d.basis != r.Basis || allowed[subjectOf(d.image())] == r.Basis {
			continue
		}
		d.Rule, d.Mode = r.Name(), r.Mode
		all = append(all, d.Denied)
	}
	return all
}

func (d denied) image() Image { return Image{Host: d.Host, Repository: d.Repository, Digest: d.Digest} }

// Status is what the rules in use have come to.
type Status struct {
	Rules  []RuleStatus `json:"rules"`
	Denied []Denied     `json:"denied"` // the latest first
}

// Status returns what the rules in use have come to, with at most so many of the images that they do not allow; nil if there is
// no rule that could refuse anything. It does not block.
func (p *Policy) Status(most int) *Status {
	if p == nil {
		return nil
	}
	st := &Status{Denied: p.Denied()}
	images := make(map[string]int)
	for _, d := range st.Denied {
		images[d.Rule]++
	}
	for _, r := range p.Rules() {
		if r.HasConditions() {
			st.Rules = append(st.Rules, RuleStatus{
				r.Name(), r.Mode, r.counts.allowed.Load(), r.counts.refused.Load(), r.counts.unknown.Load(), images[r.Name()],
			})
		}
	}
	if st.Rules == nil {
		return nil
	}
	st.Denied = st.Denied[:min(len(st.Denied), most)]
	return st
}
