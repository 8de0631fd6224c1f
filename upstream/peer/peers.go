package peer

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/larder-registry/larder/upstream/peer/members"
	"github.com/larder-registry/larder/upstream/peer/tree"
)

const (
	// idleFor is how long a connection to a peer stays open that is not used, and maxIdle how many to each.
	idleFor = time.Minute
	maxIdle = 4
	// maxHeader bounds the header of a peer's answer, in bytes, with all signs of life before it.
	maxHeader = 1 << 20
)

// Cluster is what [Peers] needs to know about the nodes: [members.Members].
type Cluster interface {
	All() []members.Node
	Self() members.Node
}

// Options are the settings of [Peers]. Cluster and Dial are required.
type Options struct {
	Cluster Cluster
	// Dial connects to a node, and proves the cluster's key: [ring.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Span says that the nodes of all zones ask the upstreams once. Otherwise each zone does, and others are
	// asked only for what the upstream cannot be had for.
	Span bool
	// Children is how many nodes this one gives a blob to at the same time. 0 means
	// [tree.DefaultChildren].
	Children int
	// Patience is how long a node may give no sign of life. 0 means [Patience].
	Patience time.Duration
	// Log is where it is reported that a node is avoided. Nil means slog.Default().
	Log *slog.Logger
	// Meter has the instruments. Nil means none.
	Meter metric.MeterProvider
	// Tracer begins a span for each node that is asked. Nil means that there are no spans.
	Tracer trace.TracerProvider
}

// Peers are the other nodes of this node's cluster. It is safe for concurrent use.
type Peers struct {
	cluster  Cluster
	client   *http.Client
	patience time.Duration
	log      *slog.Logger
	metrics  *metrics
	tracer   trace.Tracer
	ledger   *ledger

	giver   *tree.Giver
	avoided *avoided
	signs   signs
	routes  *routes
	failed  *failures
	places  places
	// span says that nodes of other zones are asked before upstreams.
	span bool
}

// New returns the peers. Close ends their connections.
func New(opts Options) (*Peers, error) {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	p := &Peers{
		cluster:  opts.Cluster,
		patience: cmp.Or(opts.Patience, Patience),
		log:      opts.Log,
		giver:    tree.NewGiver(opts.Children),
		avoided:  newAvoided(),
		routes:   newRoutes(),
		ledger:   newLedger(),
		failed:   newFailures(),
		span:     opts.Span,
	}
	if opts.Tracer == nil {
		opts.Tracer = noop.NewTracerProvider()
	}
	p.tracer = opts.Tracer.Tracer("github.com/larder-registry/larder/upstream/peer")
	p.client = &http.Client{
		Transport: &http.Transport{
			DialTLSContext:         opts.Dial,
			MaxIdleConnsPerHost:    maxIdle,
			IdleConnTimeout:        idleFor,
			MaxResponseHeaderBytes: maxHeader,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var err error
	if p.metrics, err = newMetrics(opts.Meter, p); err != nil {
		return nil, fmt.Errorf("set up metrics of peers: %w", err)
	}
	return p, nil
}

// Close ends the connections that are idle, and the metrics. No request may run any more.
func (p *Peers) Close() error {
	p.client.CloseIdleConnections()
	return p.metrics.close()
}

// Avoided returns the nodes that are not asked for a while.
func (p *Peers) Avoided() []Avoided { return p.avoided.all(time.Now()) }

// Moved returns how many bytes of content this node has given to others, and taken from them.
func (p *Peers) Moved() (given, taken int64) {
	return p.metrics.allGiven.Load(), p.metrics.allTaken.Load()
}

// Exchanges returns what this node has given to other nodes and taken from them, in no order: those of the last
// 4,096 nodes.
func (p *Peers) Exchanges() []Exchange { return p.ledger.all() }

// Mismatched notes that what came of a blob does not match its digest: the nodes that have sent it are not
// asked for it again, and one that has lied before, or that said it had all of it, is not asked at all for a while.
func (p *Peers) Mismatched(d digest.Digest) {
	for address, whole := range p.routes.end(d.String()) {
		isLiar := p.avoided.lied(address, d.String(), "it sent wrong bytes of "+d.String(), whole, time.Now())
		p.log.Warn("a peer has sent wrong bytes; the blob is fetched elsewhere", "peer", address, "digest", d, "avoided", isLiar)
		p.metrics.lies.Add(context.Background(), 1)
	}
}

// refuted notes that a node has sent an answer that is not what it says. sure says that it has no other to blame.
func (p *Peers) refuted(address, key string, err error, sure bool) {
	isLiar := p.avoided.lied(address, key, err.Error(), sure, time.Now())
	p.log.Warn("a peer has sent a wrong answer", "peer", address, "error", err, "avoided", isLiar)
	p.metrics.lies.Add(context.Background(), 1)
}
