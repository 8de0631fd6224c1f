package daemon

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"

	"github.com/larder-registry/larder/config"
)

// NewLogger returns a logger in the configured format and level. A line about a
// request that is traced has the ids of its span.
func NewLogger(cfg config.Log, w io.Writer) *slog.Logger {
	level := new(slog.LevelVar)
	level.Set(cfg.Level)
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(traced{slog.NewJSONHandler(w, opts), level})
	}
	return slog.New(traced{slog.NewTextHandler(w, opts), level})
}

// setLevel changes the level of a logger of [NewLogger], and of all that are made from it.
func setLevel(log *slog.Logger, level slog.Level) {
	if h, ok := log.Handler().(traced); ok {
		h.level.Set(level)
	}
}

// traced is a slog handler that adds the ids of the span in a line's context, if the
// span is exported.
type traced struct {
	slog.Handler
	level *slog.LevelVar // of the handler
}

func (h traced) Handle(ctx context.Context, line slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsSampled() {
		line.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, line)
}

func (h traced) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traced{h.Handler.WithAttrs(attrs), h.level}
}
func (h traced) WithGroup(name string) slog.Handler {
	return traced{h.Handler.WithGroup(name), h.level}
}
