package upstream

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// watched is a registry of which everything is counted and traced.
type watched struct {
	*Registry
	reader *sdkmetric.ManualReader
	spans  *tracetest.SpanRecorder
	tracer trace.TracerProvider
}

func watch(t *testing.T, cfg Config) *watched {
	t.Helper()
	w := &watched{reader: sdkmetric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
	w.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(w.spans))
	c := NewClient(Options{
		Lookup: func(host string) (Config, bool) { return cfg, host == cfg.Host },
		Log:    slog.New(slog.DiscardHandler),
		Meter:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(w.reader)),
		Tracer: w.tracer,
	})
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	w.Registry = registryOf(t, c, cfg.Host)
	return w
}

// sum adds up a counter where its attributes have these values, which come in pairs.
func (w *watched) sum(t *testing.T, name string, by ...string) (n int64) {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := w.reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			counter, ok := m.Data.(metricdata.Sum[int64])
			if !ok || m.Name != name {
				continue
			}
			for _, point := range counter.DataPoints {
				matches := true
				for i := 0; i < len(by); i += 2 {
					value, _ := point.Attributes.Value(attribute.Key(by[i]))
					matches = matches && value.AsString() == by[i+1]
				}
				if matches {
					n += point.Value
				}
			}
		}
	}
	return n
}

// The registry may know the trace of a request; the hosts that it redirects to must
// not. Nobody gets the trace state of other vendors.
func TestTraceHeaderGoesToTheRegistryAlone(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[string][]http.Header)
	note := func(who string, next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen[who] = append(seen[who], r.Header.Clone())
			mu.Unlock()
			next(w, r)
		}
	}
	storage := serve(t, note("storage", content))
	registry := serve(t, note("registry", redirect(storage.URL)))
	r := watch(t, Config{Host: "a.registry.test", Name: "*.registry.test", Endpoint: registry.URL})

	state, err := trace.ParseTraceState("vendor=secret")
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := r.tracer.Tracer("").Start(t.Context(), "request")
	ctx = trace.ContextWithSpanContext(ctx, span.SpanContext().WithTraceState(state))
	part, err := r.OpenBlob(ctx, repo, someBlob, Range{Len: 100})
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, part.Body); got != "content" {
		t.Errorf("got %q", got)
	}

	mu.Lock()
	defer mu.Unlock()
	if len(seen["registry"]) != 1 || len(seen["storage"]) != 1 {
		t.Fatalf("asked: %v", seen)
	}
	if parent := seen["registry"][0].Get("Traceparent"); !strings.Contains(parent, span.SpanContext().TraceID().String()) {
		t.Errorf("the registry was sent the traceparent %q", parent)
	}
	if got := seen["registry"][0].Get("Tracestate"); got != "" {
		t.Errorf("the registry was sent the tracestate %q", got)
	}
	if got := seen["storage"][0].Get("Traceparent"); got != "" {
		t.Errorf("the storage was sent the traceparent %q", got)
	}
	for _, target := range []string{"registry", "storage"} {
		if n := r.sum(t, "larder.upstream.requests", "upstream", "*.registry.test", "target", target); n != 1 {
			t.Errorf("%d requests to the %s were counted, want 1", n, target)
		}
	}
	if n := r.sum(t, "larder.upstream.bytes", "target", "storage"); n != int64(len("content")) {
		t.Errorf("%d bytes from the storage were counted", n)
	}
}

// Signed URLs, tokens and passwords are credentials. Spans of failures must not have
// them either.
func TestSpansHoldNoSecrets(t *testing.T) {
	f := startECR(t, ecrtest.Options{})
	r := watch(t, Config{Host: f.Host(), Endpoint: f.Endpoint, ECR: ECRConfig{APIEndpoint: f.Endpoint}})
	layer := addBlob(t, f, ecrtest.Random(1, 1000))
	ctx, span := r.tracer.Tracer("").Start(t.Context(), "request")
	fetch := func() {
		if part, err := r.OpenBlob(ctx, repo, layer, Range{Len: 1000}); err == nil {
			readAll(t, part.Body)
		}
	}
	fetch()
	f.ExpireTokens()
	f.ExpireURLs()
	fetch()
	f.Inject(ecrtest.Fault{On: ecrtest.Storage, Status: http.StatusForbidden})
	fetch()
	f.Stop()
	fetch()
	span.End()

	all := r.spans.Ended()
	if len(all) < 8 {
		t.Fatalf("only %d spans", len(all))
	}
	var text strings.Builder
	for _, s := range tracetest.SpanStubsFromReadOnlySpans(all) {
		for _, kv := range s.Attributes {
			_, _ = io.WriteString(&text, string(kv.Key)+"="+kv.Value.String()+"\n")
		}
		for _, event := range s.Events {
			for _, kv := range event.Attributes {
				_, _ = io.WriteString(&text, string(kv.Key)+"="+kv.Value.String()+"\n")
			}
		}
		_, _ = io.WriteString(&text, s.Name+" "+s.Status.Description+"\n")
	}
	for _, secret := range []string{"X-Amz-", "Signature", "Basic ", "aws-secret"} {
		if strings.Contains(text.String(), secret) {
			t.Errorf("the spans have %q:\n%s", secret, text.String())
		}
	}
}

func TestThrottlingIsCounted(t *testing.T) {
	answers := make(chan int, 2)
	answers <- http.StatusTooManyRequests
	answers <- http.StatusOK
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if status := <-answers; status != http.StatusOK {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, rateExceeded)
			return
		}
		content(w, r)
	})
	r := watch(t, Config{Host: "registry.test", Endpoint: server.URL})
	if n := r.sum(t, "larder.upstream.throttles"); n != 0 {
		t.Errorf("%d answers were counted before the first request", n)
	}
	if got, err := blobBody(t, r.Registry); err != nil || got != "content" {
		t.Fatalf("got %q, %v", got, err)
	}
	if n := r.sum(t, "larder.upstream.throttles", "upstream", "registry.test"); n != 1 {
		t.Errorf("%d answers were counted, want 1", n)
	}
	if n := r.sum(t, "larder.upstream.requests", "status", "429"); n != 1 {
		t.Errorf("%d requests were counted as 429, want 1", n)
	}
}
