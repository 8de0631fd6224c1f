package main

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/larder-registry/larder/upstream"
)

// meterRateLimits makes the instruments of what upstreams say of their limits
// on pulls.
func meterRateLimits(provider metric.MeterProvider, client *upstream.Client) error {
	meter := provider.Meter("github.com/larder-registry/larder/upstream")
	limit, err1 := meter.Int64ObservableGauge("larder.upstream.pulls.limit", metric.WithUnit("{pull}"),
		metric.WithDescription("Pulls that an upstream allows in its window, as it says, by upstream."))
	remaining, err2 := meter.Int64ObservableGauge("larder.upstream.pulls.remaining", metric.WithUnit("{pull}"),
		metric.WithDescription("Pulls that an upstream said last are left in its window, by upstream."))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for host, said := range client.RateLimits() {
			by := metric.WithAttributes(attribute.String("upstream", host))
			o.ObserveInt64(limit, int64(said.Limit), by)
			o.ObserveInt64(remaining, int64(said.Remaining), by)
		}
		return nil
	}, limit, remaining)
	return err
}
