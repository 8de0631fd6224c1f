package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// The errors of [Options.Upstreams].
var (
	// ErrNotConfigured says that no configured upstream has the host.
	ErrNotConfigured = errors.New("no configured upstream has this host")
	// ErrNotAllowed says that the upstream with this host may not serve the repository.
	ErrNotAllowed = errors.New("the upstream may not serve this repository")
)

// Refusal sums up the requests for one registry that were refused for one reason: the
// clients went to the registry itself.
type Refusal struct {
	// Registry is the host that the clients asked for. It is empty if they named none, and
	// "other" for all registries after the first 64.
	Registry string `json:"registry"`
	// Reason is "not configured", "not allowed", "not named" or "unusable", or "client refused" if
	// the registry does not let the client's own credential pull.
	Reason   string    `json:"reason"`
	Requests int64     `json:"requests"`
	Last     time.Time `json:"last"`
	// Text says why, for the last of them.
	Text string `json:"text"`
}

const (
	maxRefusals   = 64 // bounds the registries that are told apart: clients name any
	otherRegistry = "other"

	// Of the values of Refusal.Reason.
	notAllowed = "not allowed"
	unusable   = "unusable"
)

// refused is the error of a request that no upstream may serve.
type refused struct {
	registry string
	reason   string
	text     string
}

const notConfigured = "not configured" // as a reason

func (r *refused) Error() string { return r.text }

// Is is for errors.Is with [ErrNotConfigured].
func (r *refused) Is(target error) bool {
	return target == ErrNotConfigured && r.reason == notConfigured
}

// Unwrap returns the answer, on which clients go to the registry itself.
func (r *refused) Unwrap() error { return errcode.ErrorCodeNameUnknown.WithMessage(r.text) }

// clientRefused is the error of a request whose client the upstream does not let pull from a
// repository.
type clientRefused struct {
	error
	registry, repository, user string
}

// Unwrap is for errors.Is.
func (c *clientRefused) Unwrap() error { return c.error }

func (c *clientRefused) client() string {
	if c.user == "" {
		return "a client without a user name"
	}
	return fmt.Sprintf("user %q", cut(c.user, maxUser))
}

// maxUser bounds the name of a user that is shown, in bytes.
const maxUser = 60

// refusalIn returns what a refusal is counted as, and false for other errors.
func refusalIn(err error) (id refusalID, text string, ok bool) {
	var why *refused
	var byUpstream *clientRefused
	switch {
	case errors.As(err, &why):
		return refusalID{why.registry, why.reason}, why.text, true
	case errors.As(err, &byUpstream):
		return refusalID{byUpstream.registry, "client refused"}, fmt.Sprintf("the registry does not let %s pull from %s", byUpstream.client(), byUpstream.repository), true
	}
	return refusalID{}, "", false
}

// refusalOf returns the error for a registry and a repository whose upstream cannot be had.
func refusalOf(registry, repository string, err error) error {
	switch {
	case registry == "":
		return &refused{"", "not named", "no registry is named, and default_upstream is empty"}
	case errors.Is(err, ErrNotConfigured):
		return &refused{registry, notConfigured, registry + " is not among this Larder's upstreams"}
	case errors.Is(err, ErrNotAllowed):
		return &refused{registry, notAllowed, fmt.Sprintf("allow of upstream %s leaves out %s", registry, repository)}
	}
	return &refused{registry, unusable, fmt.Sprintf("upstream %s cannot be used: %v", registry, err)}
}

// refusals counts what [Proxy.Refusals] reports. It is safe for concurrent use.
type refusals struct {
	counter metric.Int64Counter

	mu  sync.Mutex
	all map[refusalID]*Refusal
}

type refusalID struct{ registry, reason string }

func newRefusals(provider metric.MeterProvider) (*refusals, error) {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	counter, err := provider.Meter("github.com/larder-registry/larder/proxy").Int64Counter("larder.requests.refused", metric.WithUnit("{request}"),
		metric.WithDescription("Requests for registries or repositories that no upstream may serve, by registry and reason."))
	if err == nil {
		counter.Add(context.Background(), 0, labelled(refusalID{"", "not named"})) // so that the metric exists
	}
	return &refusals{counter: counter, all: make(map[refusalID]*Refusal)}, err
}

// note counts a request that ended with err, if that is a refusal.
func (r *refusals) note(err error) {
	if err == nil {
		return // without an allocation: most requests succeed
	}
	id, text, ok := refusalIn(err)
	if !ok {
		return
	}
	r.mu.Lock()
	if r.all[id] == nil && len(r.all) >= maxRefusals {
		id.registry = otherRegistry
	}
	if r.all[id] == nil {
		r.all[id] = &Refusal{Registry: id.registry, Reason: id.reason}
	}
	of := r.all[id]
	of.Requests++
	of.Last, of.Text = time.Now(), text
	r.mu.Unlock()
	r.counter.Add(context.Background(), 1, labelled(id))
}

func labelled(id refusalID) metric.AddOption {
	return metric.WithAttributes(attribute.String("upstream", id.registry), attribute.String("reason", id.reason))
}

// list returns all refusals, the latest first.
func (r *refusals) list() []Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Refusal, 0, len(r.all))
	for _, one := range r.all {
		list = append(list, *one)
	}
	slices.SortFunc(list, func(a, b Refusal) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Registry, b.Registry), cmp.Compare(a.Reason, b.Reason))
	})
	return list
}
