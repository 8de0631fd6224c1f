package peer

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/larder-registry/larder/upstream/peer/tree"
)

// Results of questions to other nodes, in metrics.
const (
	resultBlob     = "blob"     // a part of a blob
	resultDocument = "document" // a manifest, or a list
	resultSilent   = "silent"   // no answer
	resultUpstream = "upstream" // no node could give a blob: the upstream was asked
)

// metrics are what is measured of peers.
type metrics struct {
	questions, bytes, requests, lies metric.Int64Counter
	registration                     metric.Registration

	allTaken, allGiven atomic.Int64 // bytes

	// Each is made once, since they are used for each read.
	taken, given metric.MeasurementOption
	results      map[string]metric.MeasurementOption
	verdicts     map[tree.Verdict]metric.MeasurementOption
}

func newMetrics(provider metric.MeterProvider, p *Peers) (*metrics, error) {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/larder-registry/larder/upstream/peer")
	m := &metrics{
		taken:    option("direction", "taken"),
		given:    option("direction", "given"),
		results:  make(map[string]metric.MeasurementOption),
		verdicts: make(map[tree.Verdict]metric.MeasurementOption),
	}
	var err error
	counter := func(name, unit, text string) (c metric.Int64Counter) {
		if err == nil {
			c, err = meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		}
		return c
	}
	m.questions = counter("larder.peer.questions", "{question}", "Questions to other nodes, by result.")
	m.bytes = counter("larder.peer.bytes", "By", "Bytes of content between this node and others, by direction.")
	m.requests = counter("larder.peer.requests", "{request}", "Requests of other nodes for blobs, by what became of them.")
	m.lies = counter("larder.peer.lies", "{answer}", "Answers of other nodes with wrong content.")
	if err != nil {
		return nil, err
	}
	gauge := func(name, unit, text string) (g metric.Int64ObservableGauge) {
		if err == nil {
			g, err = meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(text))
		}
		return g
	}
	members := gauge("larder.peer.members", "{node}", "Nodes of the cluster that this one knows, itself among them, by whether they are in its zone.")
	avoided := gauge("larder.peer.avoided", "{node}", "Nodes that this one does not ask for a while.")
	if err != nil {
		return nil, err
	}
	same, other := option("zone", "own"), option("zone", "other")
	m.registration, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		self := p.cluster.Self()
		own, all := 0, p.cluster.All()
		for _, n := range all {
			if n.Zone == self.Zone {
				own++
			}
		}
		o.ObserveInt64(members, int64(own), same)
		o.ObserveInt64(members, int64(len(all)-own), other)
		o.ObserveInt64(avoided, int64(p.avoided.nodes(time.Now())))
		return nil
	}, members, avoided)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	for _, result := range []string{resultBlob, resultDocument, resultSilent, resultUpstream} {
		m.results[result] = option("result", result)
		m.questions.Add(ctx, 0, m.results[result])
	}
	for verdict, name := range map[tree.Verdict]string{tree.Give: "given", tree.Pass: "passed on", tree.Busy: "refused"} {
		m.verdicts[verdict] = option("result", name)
		m.requests.Add(ctx, 0, m.verdicts[verdict])
	}
	m.bytes.Add(ctx, 0, m.taken)
	m.bytes.Add(ctx, 0, m.given)
	m.lies.Add(ctx, 0)
	return m, nil
}

func option(key, value string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String(key, value)))
}

func (m *metrics) asked(result string) {
	m.questions.Add(context.Background(), 1, m.results[result])
}
func (m *metrics) served(v tree.Verdict) {
	m.requests.Add(context.Background(), 1, m.verdicts[v])
}

func (m *metrics) took(n int) {
	m.allTaken.Add(int64(n))
	m.bytes.Add(context.Background(), int64(n), m.taken)
}

func (m *metrics) gave(n int64) {
	m.allGiven.Add(n)
	m.bytes.Add(context.Background(), n, m.given)
}

func (m *metrics) close() error {
	return m.registration.Unregister()
}
