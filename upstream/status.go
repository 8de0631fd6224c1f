package upstream

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// Status is the state of an upstream, for people to read, and as the status page and
// the commands have it in JSON. It has no secrets. Times that are not known are zero.
type Status struct {
	Host string `json:"host"`
	// ReplicaOf is the host whose replica this is, if no client asked for it by its
	// own name.
	ReplicaOf string `json:"replicaOf,omitempty"`
	// Auth is how requests authenticate, as far as it is known: "ecr", "bearer",
	// "basic" or "none".
	Auth string `json:"auth"`
	// TokenObtained and TokenExpires are of the token in use that lasts longest.
	TokenObtained time.Time `json:"tokenObtained,omitzero"`
	TokenExpires  time.Time `json:"tokenExpires,omitzero"`
	// TokenError is why there is no newer token, or empty.
	TokenError string `json:"tokenError,omitempty"`
	// Throttled says that requests are held back, because the upstream takes or is
	// allowed no more. The next three fields say how far.
	Throttled bool `json:"throttled"`
	// Rate is the requests that are sent per second; 0 means no limit.
	Rate float64 `json:"rate,omitempty"`
	// Waiting counts the requests that are held back now.
	Waiting int `json:"waiting,omitempty"`
	// PausedUntil is when the next request may be sent; zero means now.
	PausedUntil time.Time `json:"pausedUntil,omitzero"`
	// LastAnswer is when the upstream last answered a request as it should, a 404
	// included.
	LastAnswer time.Time `json:"lastAnswer,omitzero"`
	// LastError is the last failure, at LastErrorAt; empty if there was none.
	LastError   string    `json:"lastError,omitempty"`
	LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
}

// Status returns how it is with each upstream that is in use, sorted by host. It
// returns at once, and may be called every second.
func (c *Client) Status() []Status {
	c.mu.Lock()
	registries := c.registries.Values()
	c.mu.Unlock()
	all := make(map[string]Status)
	for _, r := range registries {
		for _, replica := range r.replicas {
			if _, known := all[replica.host]; !known {
				all[replica.host] = replica.status(r.host)
			}
		}
	}
	for _, r := range registries {
		all[r.host] = r.status("")
	}
	sorted := make([]Status, 0, len(all))
	for _, st := range all {
		sorted = append(sorted, st)
	}
	slices.SortFunc(sorted, func(a, b Status) int { return cmp.Compare(a.Host, b.Host) })
	return sorted
}

func (r *Registry) status(replicaOf string) Status {
	st := Status{Host: r.host, ReplicaOf: replicaOf, Auth: "none"}
	switch a := r.auth.(type) {
	case *ecrAuth:
		a.describe(&st)
	case *auth.Challenged:
		st.Auth, st.TokenExpires = cmp.Or(a.Scheme(), st.Auth), a.Expires()
	}
	st.addBacklog(r.requests.Backlog())
	if r.pulls != nil {
		st.addBacklog(r.pulls.Backlog())
	}
	if r.anonymousPulls != r.pulls {
		st.addBacklog(r.anonymousPulls.Backlog())
	}
	r.outcome.describe(&st)
	return st
}

func (a *ecrAuth) describe(st *Status) {
	st.Auth = "ecr"
	a.source.mu.Lock()
	defer a.source.mu.Unlock()
	if token := a.source.token; token.value != "" {
		st.TokenObtained, st.TokenExpires = token.obtained, token.until()
	}
	if a.source.failure != nil {
		st.TokenError = legible(a.source.failure)
	}
}

// addBacklog adds what a limiter holds back. A registry may have several.
func (st *Status) addBacklog(b pace.Backlog) {
	st.Throttled = st.Throttled || b != pace.Backlog{}
	if b.PausedUntil.After(st.PausedUntil) {
		st.PausedUntil = b.PausedUntil
	}
	if b.Rate > 0 && (st.Rate == 0 || b.Rate < st.Rate) {
		st.Rate = b.Rate
	}
	st.Waiting += b.Waiting
}

// outcome is what requests to a registry came to. It is safe for concurrent use.
type outcome struct {
	mu       sync.Mutex // guards what follows
	answered time.Time
	failure  string
	failed   time.Time
}

// note takes in how a request ended. One that its client gave up says nothing.
func (o *outcome) note(ctx context.Context, err error) {
	now := time.Now()
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		o.mu.Lock()
		defer o.mu.Unlock()
		o.answered = now
	case !reply.CallerLeft(ctx):
		text := legible(err)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.failure, o.failed = text, now
	}
}

func (o *outcome) describe(st *Status) {
	o.mu.Lock()
	defer o.mu.Unlock()
	st.LastAnswer, st.LastError, st.LastErrorAt = o.answered, o.failure, o.failed
}

// maxLegible bounds the text of an error, in bytes: some of it is the upstream's
// own.
const maxLegible = 400

// legible is an error in one line of valid text.
func legible(err error) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(err.Error(), "�")), " ")
	if len(text) <= maxLegible {
		return text
	}
	end := maxLegible
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
