package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/larder-registry/larder/config"
)

// telemetry makes instruments and spans, and exports them to /metrics and to a
// collector.
type telemetry struct {
	meter  metric.MeterProvider
	tracer trace.TracerProvider // nil without a collector
	page   http.Handler         // /metrics

	push func(context.Context) error   // exports metrics
	ends []func(context.Context) error // stop the exporters
}

// flush bounds how long the end of the daemon waits for a collector, twice: with the
// drain that is less than the 30 s after which Kubernetes kills.
const flush = 2 * time.Second

// newTelemetry sets telemetry up. The collector is named by the configuration, or else
// by OTEL_EXPORTER_OTLP_ENDPOINT in env. Other OTEL_EXPORTER_OTLP_ variables of the
// process (headers, certificates, timeouts; see the specification of OTLP's exporters)
// are used in both cases. Without a collector nothing is dialled.
func newTelemetry(ctx context.Context, cfg config.Telemetry, version string, env []string, log *slog.Logger) (*telemetry, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("set up metrics: %w", err)
	}
	t := &telemetry{page: promhttp.HandlerFor(registry, promhttp.HandlerOpts{})}
	about, err := resource.New(ctx,
		resource.WithHost(),
		resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "larder"), attribute.String("service.version", version)),
		resource.WithFromEnv()) // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override the others
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("set up telemetry: %w", err)
	}
	readers := []sdkmetric.Option{sdkmetric.WithResource(about), sdkmetric.WithReader(exporter)}
	if cfg.OTLPEndpoint != "" || hasCollector(env) {
		pushed, err := t.startOTLP(ctx, cfg, about, log)
		if err != nil {
			return nil, fmt.Errorf("set up telemetry: %w", err)
		}
		readers = append(readers, sdkmetric.WithReader(pushed))
	}
	provider := sdkmetric.NewMeterProvider(readers...)
	t.meter, t.push = provider, provider.ForceFlush
	t.ends = append(t.ends, provider.Shutdown)
	return t, nil
}

func hasCollector(env []string) bool {
	return slices.ContainsFunc(env, func(entry string) bool {
		value, ok := strings.CutPrefix(entry, "OTEL_EXPORTER_OTLP_ENDPOINT=")
		return ok && value != ""
	})
}

// startOTLP starts the exporters to a collector. It sets the tracer and returns the
// reader that pushes metrics.
func (t *telemetry) startOTLP(ctx context.Context, cfg config.Telemetry, about *resource.Resource, log *slog.Logger) (sdkmetric.Reader, error) {
	var toTraces []otlptracehttp.Option
	var toMetrics []otlpmetrichttp.Option
	if cfg.OTLPEndpoint != "" {
		toTraces = append(toTraces, otlptracehttp.WithEndpointURL(cfg.OTLPEndpoint+"/v1/traces"))
		toMetrics = append(toMetrics, otlpmetrichttp.WithEndpointURL(cfg.OTLPEndpoint+"/v1/metrics"))
	}
	spans, err := otlptracehttp.New(ctx, toTraces...)
	if err != nil {
		return nil, err
	}
	metrics, err := otlpmetrichttp.New(ctx, toMetrics...)
	if err != nil {
		return nil, errors.Join(err, spans.Shutdown(ctx))
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(about),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.SampleRatio))),
		sdktrace.WithBatcher(&loudSpans{SpanExporter: spans, outage: outage{log: log, what: "traces"}}),
	)
	t.tracer = provider
	t.ends = append(t.ends, provider.Shutdown)
	return sdkmetric.NewPeriodicReader(&loudMetrics{Exporter: metrics, outage: outage{log: log, what: "metrics"}}), nil
}

// pushLast exports metrics for the last time. It is called before the store and the
// upstreams are closed, since their gauges end with them.
func (t *telemetry) pushLast() {
	ctx, cancel := context.WithTimeout(context.Background(), flush)
	defer cancel()
	_ = t.push(ctx) // the exporter logs a failure
}

// end exports what is left, if the collector takes it in time, and stops.
func (t *telemetry) end(log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), flush)
	defer cancel()
	for _, end := range t.ends {
		if err := end(ctx); err != nil {
			log.Warn("the last telemetry was not sent", "error", err)
		}
	}
}

// outage logs when a collector begins to fail and when it works again. The SDK would
// write each failure to standard error. It belongs to one goroutine at a time, as
// exporters do.
type outage struct {
	log  *slog.Logger
	what string // is exported
	on   bool
}

func (o *outage) note(err error) {
	switch {
	case err != nil && !o.on:
		o.log.Warn("the collector does not take "+o.what+"; they are lost until it does", "error", err)
	case err == nil && o.on:
		o.log.Info("the collector takes " + o.what + " again")
	}
	o.on = err != nil
}

// loudSpans is a span exporter whose failures are logged as an outage.
type loudSpans struct {
	sdktrace.SpanExporter
	outage
}

func (e *loudSpans) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	e.note(e.SpanExporter.ExportSpans(ctx, spans))
	return nil
}

// loudMetrics is a metric exporter whose failures are logged as an outage.
type loudMetrics struct {
	sdkmetric.Exporter
	outage
}

func (e *loudMetrics) Export(ctx context.Context, metrics *metricdata.ResourceMetrics) error {
	e.note(e.Exporter.Export(ctx, metrics))
	return nil
}
