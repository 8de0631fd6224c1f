package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// xCache says how an answer came about: HIT, MISS, STALE or BYPASS.
const xCache = "X-Cache"

// recorder notes what is sent. It hands io.ReaderFrom through, without which
// the kernel could not copy files to sockets by itself.
type recorder struct {
	http.ResponseWriter
	start  time.Time
	prompt bool // send the headers of content without waiting for its first byte
	status int
	first  time.Duration // until status was set
	bytes  int64
	err    error // what the log line says beside
	copied error // what ended the copying of a file early
}

// begin notes the first status.
func (w *recorder) begin(status int) {
	if w.status == 0 {
		w.status, w.first = status, time.Since(w.start)
	}
}

func (w *recorder) WriteHeader(status int) {
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
	if w.prompt && status < http.StatusMultipleChoices {
		_ = http.NewResponseController(w.ResponseWriter).Flush() // the body's writes find out as well
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.begin(http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom passes src to the connection, which uses sendfile for a file, and for
// the file of a blob that is still being filled.
func (w *recorder) ReadFrom(src io.Reader) (n int64, err error) {
	w.begin(http.StatusOK)
	var blob sender
	limited, ok := src.(*io.LimitedReader)
	if ok {
		blob, _ = limited.R.(sender)
	}
	if conn, ok := w.ResponseWriter.(io.ReaderFrom); ok && blob != nil {
		n, err = blob.SendTo(conn, limited.N)
	} else {
		n, err = io.Copy(w.ResponseWriter, src)
	}
	w.bytes += n
	if err != nil {
		w.copied = err
	}
	return n, err
}

// sender is a blob that is still being filled.
type sender interface {
	SendTo(dst io.ReaderFrom, n int64) (int64, error)
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// logRequest writes the line for a request.
func (p *Proxy) logRequest(r *http.Request, w *recorder, t target, took time.Duration, aborted bool) {
	level := slog.LevelInfo
	if w.err != nil || aborted {
		level = slog.LevelWarn
	}
	ctx := context.WithoutCancel(r.Context())
	if !p.log.Enabled(ctx, level) {
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
		attrs = append(attrs, denied(w.err)...)
	}
	p.log.LogAttrs(ctx, level, "request", attrs...)
}

// denied is what an upstream knows of why it refuses, as a group.
func denied(err error) []slog.Attr {
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

func setLength(h http.Header, n int) { h.Set("Content-Length", strconv.Itoa(n)) }
