package admin

import (
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/bucket"
	"github.com/larder-registry/larder/upstream/link"
)

// Activity is what a daemon is doing, and has done since it was started. Its lists are
// never nil.
type Activity struct {
	cache.Activity
	proxy.Traffic
	FillsRunning []proxy.Fill      `json:"fillsRunning"`
	Upstreams    []upstream.Status `json:"upstreams"`
	Refused      []proxy.Refusal   `json:"refused"` // registries that clients asked for in vain
	Link         *link.Status      `json:"link,omitempty"`
	Shared       *bucket.Status    `json:"shared,omitempty"` // nil without a bucket
	// Mirror is whether this node's runtime pulls through Larder. It is nil if nobody has told.
	Mirror *MirrorCheck `json:"mirror,omitempty"`
	// Policy is what the rules about images have come to. It is nil if there are none.
	Policy *policy.Status `json:"policy,omitempty"`
}

// maxDenied bounds the images in an Activity that the policy does not allow.
const maxDenied = 50

// Clients is the part of a daemon that serves clients: a [proxy.Proxy].
type Clients interface {
	Traffic() proxy.Traffic
	Fills() []proxy.Fill
	Refusals() []proxy.Refusal
	Recent() proxy.Recent
}

// monitor reports a daemon's activity. Its methods do not block, and are cheap enough
// to be called every second.
type monitor struct {
	store     *cache.Store
	clients   Clients
	upstreams func() []upstream.Status // may be nil
	link      func() link.Status       // may be nil
	bucket    func() bucket.Status     // may be nil
	mirror    *mirror
	policy    *policy.Policy // may be nil
}

func (m *monitor) activity() Activity {
	a := Activity{
		Activity:     m.store.Activity(),
		Traffic:      m.clients.Traffic(),
		FillsRunning: m.clients.Fills(),
		Upstreams:    []upstream.Status{},
		Refused:      m.clients.Refusals(),
		Mirror:       m.mirror.latest(),
		Policy:       m.policy.Status(maxDenied),
	}
	if m.upstreams != nil {
		a.Upstreams = append(a.Upstreams, m.upstreams()...)
	}
	if m.link != nil {
		status := m.link()
		a.Link = &status
	}
	if m.bucket != nil {
		status := m.bucket()
		a.Shared = &status
	}
	return a
}

func (m *monitor) sample(now time.Time) Sample {
	stored, sent := m.store.Activity(), m.clients.Traffic()
	return Sample{At: now.Unix(), Requests: sent.Requests, Served: sent.Served, Fetched: stored.Fetched, Passed: sent.Passed}
}
