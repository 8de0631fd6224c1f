package daemon

import (
	"compress/gzip"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	metricpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spanpb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector is an OpenTelemetry collector that keeps what it gets by OTLP over HTTP.
type collector struct {
	*httptest.Server

	mu      sync.Mutex // guards what follows
	spans   []*spanpb.Span
	metrics map[string]string // units by name
	headers []http.Header
}

func newCollector(t testing.TB) *collector {
	t.Helper()
	c := &collector{metrics: make(map[string]string)}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.take(r); err != nil {
			t.Errorf("%s: %v", r.URL, err)
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) take(r *http.Request) error {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			return err
		}
		body = unzipped
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers = append(c.headers, r.Header)
	switch r.URL.Path {
	case "/v1/traces":
		var sent tracepb.ExportTraceServiceRequest
		err = proto.Unmarshal(raw, &sent)
		for _, resource := range sent.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	case "/v1/metrics":
		var sent metricpb.ExportMetricsServiceRequest
		err = proto.Unmarshal(raw, &sent)
		for _, resource := range sent.GetResourceMetrics() {
			for _, scope := range resource.GetScopeMetrics() {
				for _, m := range scope.GetMetrics() {
					c.metrics[m.GetName()] = m.GetUnit()
				}
			}
		}
	default:
		err = errors.New("no such path")
	}
	return err
}

// trace returns the spans of a trace, by their ids, and their names, sorted.
func (c *collector) trace(id string) (spans map[string]*spanpb.Span, names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans = make(map[string]*spanpb.Span)
	for _, span := range c.spans {
		if hex.EncodeToString(span.GetTraceId()) == id {
			spans[string(span.GetSpanId())] = span
			names = append(names, span.GetName())
		}
	}
	slices.Sort(names)
	return spans, names
}

const (
	coldTrace = "0af7651916cd43dd8448eb211c80319c"
	warmTrace = "1af7651916cd43dd8448eb211c80319c"
	// unsampledTrace is one that its client does not want to be recorded.
	unsampledTrace = "2af7651916cd43dd8448eb211c80319c"
)

// A request, the fill that it begins and what that asks of the upstream are one trace, which the client may have begun.
func TestColdPullIsOneTrace(t *testing.T) {
	c := newCollector(t)
	s, stop := serveInside(t, "telemetry: {otlp_endpoint: '"+c.URL+"', sample_ratio: 0}\n")
	image := s.addImage(t, "team/app", 100_000)
	s.pull(t, "team/app", image, "Traceparent", "00-"+coldTrace+"-b7ad6b7169203331-01")
	s.pull(t, "team/app", image, "Traceparent", "00-"+warmTrace+"-b7ad6b7169203331-01")
	s.pull(t, "team/app", image, "Traceparent", "00-"+unsampledTrace+"-b7ad6b7169203331-00")
	s.pull(t, "team/app", image)
	stop()

	spans, names := c.trace(coldTrace)
	want := []string{
		"GET blob", "GET blob", "GET manifest",
		"GET registry", "GET registry", "GET registry",
		"GET storage", "GET storage",
		"fill", "fill",
	}
	if !slices.Equal(names, want) {
		t.Fatalf("the spans of a cold pull are %q, want %q", names, want)
	}
	parents := map[string]string{"fill": "GET blob", "GET storage": "fill"}
	for _, span := range spans {
		parent := spans[string(span.GetParentSpanId())]
		if name, ok := parents[span.GetName()]; ok && parent.GetName() != name {
			t.Errorf("a span %s is below %q, want %q", span.GetName(), parent.GetName(), name)
		}
		if span.GetName() == "GET registry" && parent.GetName() != "fill" && parent.GetName() != "GET manifest" {
			t.Errorf("a question to the registry is below %q", parent.GetName())
		}
		if span.GetName() == "GET blob" {
			if len(span.GetLinks()) != 1 || spans[string(span.GetLinks()[0].GetSpanId())].GetName() != "fill" {
				t.Errorf("a request that was served from a fill has the links %v", span.GetLinks())
			}
		}
		for _, secret := range []string{"X-Amz", "Basic ", "Signature"} {
			if strings.Contains(span.String(), secret) {
				t.Errorf("a span has %q: %v", secret, span)
			}
		}
	}
	if _, names := c.trace(warmTrace); !slices.Equal(names, []string{"GET blob", "GET blob", "GET manifest"}) {
		t.Errorf("the spans of a warm pull are %q", names)
	}
	if spans, _ := c.trace(unsampledTrace); len(spans) > 0 {
		t.Errorf("a client that wants no trace got one: %v", spans)
	}
	for _, span := range c.spans { // beside those of the ECR token, which nobody's request is
		switch id := hex.EncodeToString(span.GetTraceId()); id {
		case coldTrace, warmTrace:
		default:
			t.Errorf("a sample ratio of 0 traced %s", span.GetName())
		}
	}
	if c.metrics["larder.requests"] != "{request}" || c.metrics["larder.response.bytes"] != "By" || c.metrics["larder.upstream.request.duration"] != "s" {
		t.Errorf("the collector got the metrics %v", c.metrics)
	}
	for _, gauge := range []string{"larder.cache.size", "larder.cache.limit", "larder.upstream.token.remaining"} {
		if _, ok := c.metrics[gauge]; !ok {
			t.Errorf("the collector got no %s, which is measured when it is pushed: the first time is the end", gauge)
		}
	}
	if !strings.Contains(s.log.String(), "trace_id="+coldTrace+" span_id=") {
		t.Errorf("the log does not tell the trace of a request:\n%s", s.log)
	}
}

func TestCollectorCanComeFromTheEnvironment(t *testing.T) {
	c := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=nodes")
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
	s, stop := serveInside(t, "telemetry: {sample_ratio: 1}\n")
	s.pull(t, "team/app", s.addImage(t, "team/app", 1000))
	stop()
	if len(c.spans) == 0 || len(c.metrics) == 0 {
		t.Errorf("the collector got %d spans and %d metrics", len(c.spans), len(c.metrics))
	}
	for _, header := range c.headers {
		if header.Get("X-Tenant") != "nodes" {
			t.Errorf("the collector got the headers %v", header)
		}
	}
}

func TestNothingIsTracedWithoutACollector(t *testing.T) {
	s, _ := serveInside(t, "telemetry: {sample_ratio: 1}\n")
	s.pull(t, "team/app", s.addImage(t, "team/app", 1000), "Traceparent", "00-"+coldTrace+"-b7ad6b7169203331-01")
	if strings.Contains(s.log.String(), "trace_id") {
		t.Errorf("a request is traced:\n%s", s.log)
	}
}

func TestCollectorThatFailsIsLoggedOnce(t *testing.T) {
	var buf strings.Builder
	o := outage{log: slog.New(slog.NewTextHandler(&buf, nil)), what: "traces"}
	for _, err := range []error{nil, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, nil, nil} {
		o.note(err)
	}
	if lost, back := strings.Count(buf.String(), "does not take traces"), strings.Count(buf.String(), "takes traces again"); lost != 1 || back != 1 {
		t.Errorf("logged:\n%s", buf.String())
	}
}
