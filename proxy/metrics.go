package proxy

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/access"
)

// metrics are the proxy's instruments. deploy/METRICS.md explains each of them.
// It is safe for concurrent use.
type metrics struct {
	requests  metric.Int64Counter
	bytes     metric.Int64Counter
	firstByte metric.Float64Histogram
	cut       metric.Int64Counter
	decisions metric.Int64Counter
	active    atomic.Int64

	withRepository bool

	// Attribute sets are made once for all labels: making one costs more than a hit.
	known atomic.Pointer[map[labels]measured] // the map is replaced, never changed

	mu           sync.Mutex // guards what follows, and the replacing of known
	repositories map[string]bool
}

// labels tell requests apart.
type labels struct {
	route                       kind
	status                      int
	cache, upstream, repository string
}

// measured is labels in the form that the instruments take.
type measured struct {
	request   []metric.AddOption
	bytes     []metric.AddOption
	firstByte []metric.RecordOption
}

const (
	// maxRepositories bounds the values of the attribute repository. Further ones are
	// "other".
	maxRepositories = 100
	// maxLabels bounds the combinations that are kept. Further ones are made for each
	// request.
	maxLabels = 4096
	// routeOther is the route of a request that has none.
	routeOther = "other"
	// statusLeft is the status, as in nginx, for a client that left before its response
	// began.
	statusLeft = 499
)

func newMetrics(provider metric.MeterProvider, withRepository bool, clients *runtimes) (*metrics, error) {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/larder-registry/larder/proxy")
	m := &metrics{withRepository: withRepository, repositories: make(map[string]bool)}
	m.known.Store(new(map[labels]measured))
	var err1, err2, err3, err4, err5, err6 error
	m.requests, err1 = meter.Int64Counter("larder.requests", metric.WithUnit("{request}"),
		metric.WithDescription("Requests of clients that were answered, by route, status, cache result and upstream."))
	m.bytes, err2 = meter.Int64Counter("larder.response.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes of bodies sent to clients, but those of errors, by route, cache result and upstream."))
	m.firstByte, err3 = meter.Float64Histogram("larder.request.first_byte", metric.WithUnit("s"),
		metric.WithDescription("Time from a request to the headers of its answer, by route and cache result."),
		metric.WithExplicitBucketBoundaries(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20))
	m.cut, err4 = meter.Int64Counter("larder.responses.cut", metric.WithUnit("{response}"),
		metric.WithDescription("Answers whose body was cut off, since what would have followed was wrong or could not be had."))
	_, err5 = meter.Int64ObservableGauge("larder.requests.active", metric.WithUnit("{request}"),
		metric.WithDescription("Requests of clients that are being answered."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(m.active.Load())
			return nil
		}))
	m.decisions, err6 = meter.Int64Counter("larder.access.decisions", metric.WithUnit("{decision}"),
		metric.WithDescription("Requests of clients whose own rights decide, by result and reason."))
	if err := errors.Join(err1, err2, err3, err4, err5, err6, clients.measure(meter)); err != nil {
		return nil, err
	}
	m.cut.Add(context.Background(), 0)
	for result, reasons := range map[string][]access.Why{
		"allowed":   {access.Upstream, access.Remembered, access.Offline},
		"refused":   {access.Upstream, access.Remembered},
		"undecided": {access.Upstream}, "failed": {access.Upstream}, "limited": {access.Upstream},
	} {
		for _, why := range reasons {
			m.decisions.Add(context.Background(), 0, decision(result, why))
		}
	}
	return m, nil
}

// count adds a finished response.
func (m *metrics) count(w *recorder, t target, aborted bool) {
	l := labels{
		route:    t.kind,
		status:   cmp.Or(w.status, statusLeft),
		cache:    w.Header().Get(xCache),
		upstream: t.metricName(),
	}
	if m.withRepository {
		l.repository = m.repositoryLabel(t.repo.Name, l.status)
	}
	ctx, by := context.Background(), m.measured(l)
	m.requests.Add(ctx, 1, by.request...)
	m.bytes.Add(ctx, w.content(), by.bytes...)
	if w.status != 0 {
		m.firstByte.Record(ctx, w.first.Seconds(), by.firstByte...)
	}
	if aborted {
		m.cut.Add(ctx, 1)
	}
}

// decided counts a request of a client whose own rights decide. Its reason is in err if it was not
// allowed. One whose client has left is not decided.
func (m *metrics) decided(why access.Why, err error) {
	result := "failed"
	switch {
	case err == nil:
		result = "allowed"
	case errors.Is(err, context.Canceled):
		return
	case errors.Is(err, access.ErrRefused):
		result = "refused"
	case errors.Is(err, access.ErrTooMany):
		result = "limited"
	case errors.Is(err, fs.ErrNotExist) && !cache.IsPostponed(err):
		result = "undecided"
	}
	m.decisions.Add(context.Background(), 1, decision(result, why))
}

// decision returns the labels of a decision.
func decision(result string, why access.Why) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("result", result), attribute.String("reason", string(why)))
}

// repositoryLabel returns the name of a repository if it is one of the first that
// something was served from, else "other". A name that failed does not count as one, so
// that clients cannot use the names up.
func (m *metrics) repositoryLabel(name string, status int) string {
	if name == "" {
		return ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.repositories[name] {
		return name
	}
	if status >= http.StatusBadRequest || len(m.repositories) >= maxRepositories {
		return "other"
	}
	m.repositories[name] = true
	return name
}

func (m *metrics) measured(l labels) measured {
	known := *m.known.Load()
	if by, ok := known[l]; ok {
		return by
	}
	by := l.measured()
	m.mu.Lock()
	defer m.mu.Unlock()
	known = *m.known.Load()
	if len(known) < maxLabels {
		more := maps.Clone(known)
		if more == nil {
			more = make(map[labels]measured)
		}
		more[l] = by
		m.known.Store(&more)
	}
	return by
}

func (l labels) measured() measured {
	few := []attribute.KeyValue{
		attribute.String("route", cmp.Or(string(l.route), routeOther)),
		attribute.String("cache", l.cache),
	}
	more := append(few[:2:2], attribute.String("upstream", l.upstream))
	if l.repository != "" {
		more = append(more, attribute.String("repository", l.repository))
	}
	all := append(more[:len(more):len(more)], attribute.Int("status", l.status))
	with := func(by []attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(by...))
	}
	return measured{
		request:   []metric.AddOption{with(all)},
		bytes:     []metric.AddOption{with(more)},
		firstByte: []metric.RecordOption{with(few)},
	}
}
