package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/name"
)

const (
	// maxLogged bounds what a client's request line adds to its log line, in bytes.
	maxLogged = 256
	// maxReason bounds the error of a log line, in bytes. It may quote an upstream. AWS's
	// longest denials, with the statement that would allow the action, have some 2,000.
	maxReason = 4 << 10
)

// cut returns at most n bytes of a text, and marks where it was cut.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + "…"
}

// requestLog logs one line for each request.
type requestLog struct{ log *slog.Logger }

func (l requestLog) write(r *http.Request, w *recorder, t target, took time.Duration, aborted bool) {
	level := slog.LevelInfo
	if w.err != nil && !cache.IsPostponed(w.err) || aborted {
		level = slog.LevelWarn
	}
	ctx := context.WithoutCancel(r.Context())
	if !l.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs,
		slog.String("client", r.RemoteAddr),
		slog.String("method", cut(r.Method, maxLogged)),
		slog.String("upstream", t.repo.Upstream),
		slog.String("repository", t.repo.Name),
		slog.String("reference", t.reference),
		slog.Int("status", w.status),
		slog.Int64("bytes", w.bytes),
		slog.Duration("duration", took),
		slog.String("cache", w.Header().Get(xCache)),
	)
	if t.repo.Name == "" {
		attrs = append(attrs, slog.String("url", cut(shownURL(r.URL), maxLogged)))
	}
	if aborted {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	if w.err != nil {
		attrs = append(attrs, slog.String("error", cut(w.err.Error(), maxReason)))
		attrs = append(attrs, denialOf(w.err)...)
	}
	l.log.LogAttrs(ctx, level, "request", attrs...)
}

// shownURL is a request's URL for the log: its path, and which upstream it names. The rest of a
// query may be a signature or a token that was meant for another server, and a name that is no
// host may have a password.
func shownURL(u *url.URL) string {
	shown := u.EscapedPath()
	if ns, ok := name.ParseHost(u.Query().Get("ns")); ok {
		shown += "?" + url.Values{"ns": {ns}}.Encode()
	}
	return shown
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
