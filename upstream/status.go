package upstream

import (
	"cmp"
	"time"

	"github.com/larder-registry/larder/upstream/pace"
)

// Status is the state of an upstream, for people to read, and as the status page and
// the commands have it in JSON. It has no secrets. Times that are not known are zero.
type Status struct {
	Host string `json:"host"`
	// ReplicaOf is the host whose replica this is, if no client asked for it by its
	// own name.
	ReplicaOf string `json:"replicaOf,omitempty"`
	// Offline says that the upstream is not asked, because the operator said so.
	Offline bool `json:"offline,omitempty"`
	// Auth is how requests authenticate, as far as it is known: "ecr", "bearer",
	// "basic" or "none".
	Auth string `json:"auth"`
	// TokenObtained and TokenExpires are of the token in use that lasts longest.
	TokenObtained time.Time `json:"tokenObtained,omitzero"`
	TokenExpires  time.Time `json:"tokenExpires,omitzero"`
	// TokenError is why there is no newer token, or empty.
	TokenError string `json:"tokenError,omitempty"`
	// PullsNotRecorded is the AWS principal, which requests are made by, whose pulls ECR does
	// not record: images in use cannot be made known to it. It is "" if there is none, or
	// if that is not known.
	PullsNotRecorded string `json:"pullsNotRecorded,omitempty"`
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

// addCredentials adds how requests authenticate.
func (st *Status) addCredentials(s *site) {
	if s.ecr == nil {
		st.Auth, st.TokenExpires = cmp.Or(s.configured.challenged.Scheme(), st.Auth), s.configured.challenged.Expires()
		return
	}
	token := s.ecr.Token()
	st.Auth, st.TokenObtained, st.TokenExpires = "ecr", token.Obtained, token.Expires
	st.PullsNotRecorded = s.ecr.Excluded()
	if token.Err != nil {
		st.TokenError = legible(token.Err)
	}
}

// addBacklog adds the backlog of a limiter. A registry may have several.
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
