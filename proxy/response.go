package proxy

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
)

const (
	// xCache is the header with a response's cache.State.
	xCache = "X-Cache"
	// blobType is the media type of all blobs.
	blobType = "application/octet-stream"
)

// recorder is a ResponseWriter that notes what is sent. It passes io.ReaderFrom on, so
// that the kernel copies files to sockets (sendfile). It belongs to one request.
type recorder struct {
	http.ResponseWriter
	start  time.Time
	prompt bool // send the headers before the first byte of the body is there
	status int
	first  time.Duration // from start to the status
	bytes  int64         // of the body
	err    error         // why the request failed
	copied error         // why the copying of a file ended early
}

// begin notes the first status.
func (w *recorder) begin(status int) {
	if w.status == 0 {
		w.status, w.first = status, time.Since(w.start)
	}
}

// content is the number of bytes of the body, or 0 if it is only the text of an error.
func (w *recorder) content() int64 {
	if w.status >= http.StatusBadRequest {
		return 0
	}
	return w.bytes
}

func (w *recorder) WriteHeader(status int) {
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
	if w.prompt && status < http.StatusMultipleChoices {
		_ = http.NewResponseController(w.ResponseWriter).Flush() // writing the body fails too
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.begin(http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom passes src to the connection, which uses sendfile for a file and for the
// file of a running fill.
func (w *recorder) ReadFrom(src io.Reader) (n int64, err error) {
	w.begin(http.StatusOK)
	var fill sender
	limited, ok := src.(*io.LimitedReader)
	if ok {
		fill, _ = limited.R.(sender)
	}
	if conn, ok := w.ResponseWriter.(io.ReaderFrom); ok && fill != nil {
		n, err = fill.SendTo(conn, limited.N)
	} else {
		n, err = io.Copy(w.ResponseWriter, src)
	}
	w.bytes += n
	if err != nil {
		w.copied = err
	}
	return n, err
}

// sender is the blob of a running fill.
type sender interface {
	SendTo(dst io.ReaderFrom, n int64) (int64, error)
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// setContent sets the headers that all responses with content have, whatever their
// status. Content-Length, Content-Range and Accept-Ranges are set when it is sent.
func setContent(h http.Header, state cache.State, mediaType string, d digest.Digest) {
	// One allocation for all, where Set makes one for each.
	values := [...]string{mediaType, d.String(), `"` + d.String() + `"`, string(state)}
	h["Content-Type"], h["Docker-Content-Digest"], h["Etag"], h[xCache] = values[0:1:1], values[1:2:2], values[2:3:3], values[3:4:4]
}

func setLength(h http.Header, n int) { h.Set("Content-Length", strconv.Itoa(n)) }

// sendBytes is http.ServeContent for content in memory. The whole content, which nearly
// all requests are for, is sent in one write.
func sendBytes(w *recorder, r *http.Request, content []byte) {
	if r.Header["Range"] != nil || r.Header["If-Match"] != nil || r.Header["If-None-Match"] != nil {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
		return
	}
	h := w.Header()
	h.Set("Accept-Ranges", "bytes")
	setLength(h, len(content))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(content) // an error means that the client has left
	}
}

// minDocumentRate is how many bytes of a large list a client must take in a second: the list
// is counted in the memory that lists share until it is sent.
const minDocumentRate = 64 << 10

// sendDocument sends a document, without ranges and digest.
func sendDocument(w *recorder, r *http.Request, state cache.State, mediaType string, body []byte) {
	h := w.Header()
	setLength(h, len(body))
	h.Set("Content-Type", mediaType)
	h.Set(xCache, string(state))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	if len(body) > smallDocument {
		conn := http.NewResponseController(w)
		atMost := time.Minute + time.Duration(len(body)/minDocumentRate)*time.Second
		_ = conn.SetWriteDeadline(time.Now().Add(atMost))         // not every writer has one
		defer func() { _ = conn.SetWriteDeadline(time.Time{}) }() // the connection may serve another request
	}
	_, _ = w.Write(body) // an error means that the client has left
}

// setAge says how many seconds ago the upstream confirmed an answer (RFC 9111, section 5.1).
func setAge(h http.Header, checked time.Time) {
	if !checked.IsZero() {
		h.Set("Age", strconv.Itoa(int(max(time.Since(checked).Seconds(), 0))))
	}
}
