package proxy

import "time"

// State is what a daemon is about, what it fetches for whom, and how it is with
// its upstreams. Neither list is null.
type State struct {
	Activity
	FillsRunning []FillStatus     `json:"fillsRunning"`
	Upstreams    []UpstreamStatus `json:"upstreams"`
}

// UpstreamStatus is how it is with an upstream, in words and figures without
// secrets. Times that are not known are zero.
type UpstreamStatus struct {
	Host string `json:"host"`
	// ReplicaOf is the host that this one stands in for, or empty.
	ReplicaOf string `json:"replicaOf,omitempty"`
	// Auth is how requests authenticate: "ecr", "bearer", "basic" or "none".
	Auth          string    `json:"auth"`
	TokenObtained time.Time `json:"tokenObtained,omitzero"`
	TokenExpires  time.Time `json:"tokenExpires,omitzero"`
	TokenError    string    `json:"tokenError,omitempty"` // why there is no newer one
	// Throttled says that requests are held back; the rest is how far.
	Throttled   bool      `json:"throttled"`
	Rate        float64   `json:"rate,omitempty"`    // requests a second; 0 for any number
	Waiting     int       `json:"waiting,omitempty"` // requests
	PausedUntil time.Time `json:"pausedUntil,omitzero"`
	LastAnswer  time.Time `json:"lastAnswer,omitzero"`
	LastError   string    `json:"lastError,omitempty"`
	LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
}

// State returns at once, and may be called every second.
func (p *Proxy) State() State {
	st := State{Activity: p.Activity(), FillsRunning: p.Fills(), Upstreams: []UpstreamStatus{}}
	if p.opts.Status != nil {
		st.Upstreams = append(st.Upstreams, p.opts.Status()...)
	}
	return st
}
