package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"
)

// requestLog logs one line for each request.
type requestLog struct{ log *slog.Logger }

func (l requestLog) write(r *http.Request, w *recorder, t target, took time.Duration, aborted bool) {
	level := slog.LevelInfo
	if w.err != nil || aborted {
		level = slog.LevelWarn
	}
	ctx := context.WithoutCancel(r.Context())
	if !l.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs,
		slog.String("client", r.RemoteAddr),
		slog.String("method", r.Method),
		slog.String("upstream", t.repo.Upstream),
		slog.String("repository", t.repo.Name),
		slog.String("reference", t.reference),
		slog.Int("status", w.status),
		slog.Int64("bytes", w.bytes),
		slog.Duration("duration", took),
		slog.String("cache", w.Header().Get(xCache)),
	)
	if t.repo.Name == "" {
		attrs = append(attrs, slog.String("url", r.URL.RequestURI()))
	}
	if aborted {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	if w.err != nil {
		attrs = append(attrs, slog.String("error", w.err.Error()))
		attrs = append(attrs, denialOf(w.err)...)
	}
	l.log.LogAttrs(ctx, level, "request", attrs...)
}

// denialOf returns what an upstream says about its refusal, as a group.
func denialOf(err error) []slog.Attr {
	var denial interface{ DenialAttrs() []slog.Attr }
	if !errors.As(err, &denial) {
		return nil
	}
	attrs := denial.DenialAttrs()
	if len(attrs) == 0 {
		return nil
	}
	return []slog.Attr{{Key: "denied", Value: slog.GroupValue(attrs...)}}
}
