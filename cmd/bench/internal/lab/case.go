package lab

import (
	"context"
	"slices"
	"time"

	"github.com/larder-registry/larder/cmd/bench/internal/process"
	"github.com/larder-registry/larder/cmd/bench/internal/report"
	"github.com/larder-registry/larder/cmd/bench/internal/server"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// A Case is a load for the servers, and how it is measured.
type Case struct {
	report.Case

	Only      []string      // names of the servers that take part; all if empty
	MaxRounds int           // 0 means no limit
	MaxSize   int64         // bytes that a server may store; 0 for its default
	Link      upstream.Link // to the upstream, for the turns
	TLS       bool          // the upstream speaks it
	// StaysBusy says that a server is not idle after its turn. It is then stopped, and there is one round.
	StaysBusy bool
	// Prepare makes what the rounds need, and returns what is measured. The servers run already.
	Prepare func(ctx context.Context, s *Setup, servers []*server.Server) (Turn, error)
}

// A Turn puts the load on one server once. The first round is 0.
type Turn func(ctx context.Context, s *server.Server, round int) (*Outcome, error)

// An Outcome is what a turn found out itself, and what the lab needs to say what the server used for it.
type Outcome struct {
	Served   int64 // bytes that clients got; 0 if CPU time for each is not reported
	Requests int64 // that clients sent; 0 if CPU time for each is not reported
	Needed   int64 // bytes that had to come from the upstream; 0 if this is not reported
	Measures report.Measures
}

// takesPart tells whether a server takes part in the case.
func (c *Case) takesPart(server string) bool {
	_, skipped := c.Skip[server]
	return !skipped && (len(c.Only) == 0 || slices.Contains(c.Only, server))
}

// rounds returns how many rounds there are, where the user asked for a number.
func (c *Case) rounds(asked int) int {
	switch {
	case c.StaysBusy:
		return 1
	case c.MaxRounds > 0:
		return min(asked, c.MaxRounds)
	}
	return asked
}

const gb = 1e9

// addUsage adds what the server used for the turn.
func (o *Outcome) addUsage(cpu time.Duration, after process.Usage) {
	if o.Served > 0 {
		o.Measures[report.CPUPerGB] = cpu.Seconds() / (float64(o.Served) / gb)
	}
	if o.Requests > 0 {
		o.Measures[report.CPUPerRequest] = float64(cpu.Microseconds()) / float64(o.Requests)
	}
	o.Measures[report.PeakMemory] = float64(after.PeakMemory) / 1e6
}

// addSent adds what the upstream sent during the turn.
func (o *Outcome) addSent(sent upstream.Sent) {
	if o.Needed > 0 {
		o.Measures[report.UpstreamBytes] = float64(sent.Bytes) / float64(o.Needed)
		o.Measures[report.UpstreamRequests] = float64(sent.Requests)
	}
	if sent.Handshakes > 0 {
		o.Measures[report.Handshakes] = float64(sent.Handshakes)
		o.Measures[report.FullHandshakes] = float64(sent.Full)
	}
}
