package link

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// String names a class in metrics.
func (c class) String() string { return [classes]string{"client", "background"}[c] }

// Status is the state of a link at one time.
type Status struct {
	// Rules are what bounds it, for people; empty if nothing does.
	Rules      string `json:"rules,omitempty"`
	Rate       int64  `json:"rate"`            // bytes per second; 0 means no bound
	Background int64  `json:"background"`      // as Rate, for what no client waits for
	Hours      string `json:"hours,omitempty"` // of the background; empty means always
	// ShutUntil is when the hours begin, and nil within them.
	ShutUntil *time.Time `json:"shutUntil,omitempty"`
	// Clients and Unattended are the bytes that came for clients, and for none.
	Clients    int64 `json:"clients"`
	Unattended int64 `json:"unattended"`
	// Waiting is how many bodies wait for their turns.
	Waiting int64 `json:"waiting"`
}

// Status returns the state. It does not block.
func (l *Link) Status() Status {
	rules := l.Rules()
	s := Status{
		Rate: rules.Rate, Background: rules.Background,
		Clients: l.bytes[attended].Load(), Unattended: l.bytes[unattended].Load(),
		Waiting: l.waiting[attended].Load() + l.waiting[unattended].Load(),
	}
	if rules != (Rules{}) {
		s.Rules = rules.Now(time.Now())
	}
	if !rules.Hours.always() {
		s.Hours = rules.Hours.String()
	}
	if now := time.Now(); !rules.Hours.contains(now) {
		until := next(now, rules.Hours.From)
		s.ShutUntil = &until
	}
	return s
}

// Observe exports the state. Its instruments end with the provider.
func (l *Link) Observe(provider metric.MeterProvider) error {
	meter := provider.Meter("github.com/larder-registry/larder/upstream")
	bytes, err := meter.Int64ObservableCounter("larder.link.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes of manifests, lists and blobs from upstreams, by whether a client waits for them."))
	if err != nil {
		return fmt.Errorf("set up metrics: %w", err)
	}
	waiting, err := meter.Int64ObservableGauge("larder.link.waiting", metric.WithUnit("{body}"),
		metric.WithDescription("Bodies of blobs that wait for their turns on the line, by whether a client waits for them."))
	if err != nil {
		return fmt.Errorf("set up metrics: %w", err)
	}
	shut, err := meter.Int64ObservableGauge("larder.link.shut",
		metric.WithDescription("1 outside of link.background.hours, else 0."))
	if err != nil {
		return fmt.Errorf("set up metrics: %w", err)
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for c := range classes {
			by := metric.WithAttributes(attribute.String("class", c.String()))
			o.ObserveInt64(bytes, l.bytes[c].Load(), by)
			o.ObserveInt64(waiting, l.waiting[c].Load(), by)
		}
		var closed int64
		if l.Postponed() != nil {
			closed = 1
		}
		o.ObserveInt64(shut, closed)
		return nil
	}, bytes, waiting, shut)
	if err != nil {
		return fmt.Errorf("set up metrics: %w", err)
	}
	return nil
}
