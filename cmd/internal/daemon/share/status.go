package share

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/larder-registry/larder/proxy/admin/answer"
	"github.com/larder-registry/larder/upstream/peer"
)

// Node is a node of the cluster, as this one knows it.
type Node struct {
	Address  string `json:"address"` // where it gives content to others
	Zone     string `json:"zone,omitempty"`
	Version  string `json:"version,omitempty"`
	Rights   string `json:"rights,omitempty"`   // a hash of its upstreams' hosts, role_arn, allow and access
	Differs  bool   `json:"differs,omitempty"`  // its rights are not this node's: such nodes should have another key
	Draining bool   `json:"draining,omitempty"` // it is about to stop
	Self     bool   `json:"self,omitempty"`     // it is this one
	Given    int64  `json:"given,omitempty"`    // bytes of content that this node has given to it, since the start
	Taken    int64  `json:"taken,omitempty"`    // and taken from it
}

// Avoided is a node that this one does not ask for a while.
type Avoided = peer.Avoided

// Status is what a node knows of its cluster.
type Status struct {
	Nodes   []Node    `json:"nodes"`
	Avoided []Avoided `json:"avoided"`
	Given   int64     `json:"given"` // bytes of content, since the start
	Taken   int64     `json:"taken"`
}

// Status returns what this node knows of its cluster. It does not block.
func (s *Sharing) Status() Status {
	st := Status{Nodes: []Node{}, Avoided: s.Avoided()}
	exchanged := make(map[string]peer.Exchange)
	for _, e := range s.Exchanges() {
		exchanged[e.Address] = e
	}
	own := s.members.Self().Rights
	for _, n := range s.members.All() {
		e := exchanged[n.Content.String()]
		rights := ""
		if n.Rights != 0 {
			rights = fmt.Sprintf("%016x", n.Rights)
		}
		st.Nodes = append(st.Nodes, Node{
			Address: n.Content.String(), Zone: n.Zone, Version: n.Version, Rights: rights, Differs: rights != "" && n.Rights != own, Draining: n.Draining, Self: n.Self,
			Given: e.Given, Taken: e.Taken,
		})
	}
	st.Given, st.Taken = s.Moved()
	return st
}

// AddTo adds the request for the status. s may be nil.
func (s *Sharing) AddTo(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/peers", func(w http.ResponseWriter, _ *http.Request) {
		if s == nil {
			answer.RefuseWith(w, http.StatusNotFound, errNoSharing)
			return
		}
		answer.JSON(w, s.Status())
	})
	mux.HandleFunc("GET /api/v1/peers/check", func(w http.ResponseWriter, r *http.Request) {
		if s == nil {
			answer.RefuseWith(w, http.StatusNotFound, errNoSharing)
			return
		}
		answer.JSON(w, s.Check(r.Context()))
	})
}

var errNoSharing = errors.New("this node shares nothing with others: its configuration has no peers, or their key cannot be read")
