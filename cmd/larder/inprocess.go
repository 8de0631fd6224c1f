package main

import (
	"context"
	"io"
	"net/http"
)

// inProcess sends requests to a handler in this process.
type inProcess struct{ handler http.Handler }

// RoundTrip implements [http.RoundTripper]. The handler runs while the body is read;
// closing the body ends it.
func (t inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	body, out := io.Pipe()
	w := &answer{header: make(http.Header), body: out, begun: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.handler.ServeHTTP(w, req.WithContext(ctx))
		if req.Body != nil {
			_ = req.Body.Close() // its error is the client's own
		}
		w.WriteHeader(http.StatusOK) // if the handler has not
		_ = out.Close()              // always nil
	}()
	<-w.begun
	return &http.Response{
		Status:     http.StatusText(w.status),
		StatusCode: w.status,
		Header:     w.header,
		Body:       &handled{body, cancel, done},
		Request:    req,
	}, nil
}

// answer is the [http.ResponseWriter] of one request. It belongs to the handler.
type answer struct {
	header http.Header
	status int
	body   *io.PipeWriter
	begun  chan struct{} // closed when status is set
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
		close(a.begun)
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// handled is the body of an answer while its handler may still run.
type handled struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

// Close ends the handler and waits for it.
func (h *handled) Close() error {
	h.cancel()
	err := h.PipeReader.Close()
	<-h.done
	return err
}
