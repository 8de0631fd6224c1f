package upstream

import (
	"errors"
	"io/fs"
	"net/http"

	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/offline"
	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// member is a registry, or one of its replicas. It is safe for concurrent use.
type member struct {
	*site
	documents documents
	blobs     blobs
	outcome   *outcome
	breaker   *pace.Breaker // for requests that another member can answer
}

func newMember(s *site) *member {
	o := new(outcome)
	return &member{
		site:      s,
		documents: documents{s, o},
		blobs:     blobs{s, o, newLocations()},
		outcome:   o,
		breaker:   pace.NewBreaker(),
	}
}

// settle reports the outcome of a request to the breaker.
func (m *member) settle(err error, probe bool) {
	if offline.Is(err) { // since the attempt began
		m.breaker.Abandoned(probe)
		return
	}
	if !isOutage(err) {
		if m.breaker.Succeeded() {
			m.log.Info("the registry answers again")
		}
		return
	}
	if m.breaker.Failed(probe, errors.Is(err, reply.ErrTimeout)) {
		m.log.Warn("the registry fails; it is asked last until it answers again", "error", err)
	}
}

// status returns the state of the member, without ReplicaOf.
func (m *member) status() Status {
	st := Status{Host: m.host, Auth: "none", Offline: m.gate.Check() != nil}
	st.addCredentials(m.site)
	for _, l := range m.throttle.limiters() {
		st.addBacklog(l.Backlog())
	}
	st.LastAnswer, st.LastError, st.LastErrorAt = m.outcome.latest()
	return st
}

// isOutage reports an error after which another registry may do better.
func isOutage(err error) bool {
	var refusal *reply.Error
	var refused *guard.RefusedError
	var wrong *reply.ContentError
	switch {
	case errors.As(err, &wrong):
		return true
	case err == nil, offline.Is(err), errors.As(err, &refused), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return false
	case reply.IsThrottled(err):
		return true
	case errors.As(err, &refusal):
		return refusal.Status >= http.StatusInternalServerError
	}
	return true // no answer, or no token to ask with
}
