package frontend

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// Exchange is one request and its answer. Everything that is sent passes through
// its WriteHeader and Write, where the fault acts and bytes are counted. It is used
// by one goroutine, and ends with a panic of [http.ErrAbortHandler] when the client
// leaves or the fault breaks the connection.
type Exchange struct {
	http.ResponseWriter
	Request *http.Request

	fault   Fault           // the zero Fault if none acts
	removed <-chan struct{} // closed when the fault is removed

	counted *atomic.Int64 // bytes of the content that were sent, or nil
	base    int64         // offset in the content at which the body begins
	sent    int64         // bytes of the body
}

// Head reports whether the answer has no body.
func (x *Exchange) Head() bool { return x.Request.Method == http.MethodHead }

// IgnoresRange reports whether the fault makes storage ignore Range.
func (x *Exchange) IgnoresRange() bool { return x.fault.NoRange }

// CountBody says that the body is a part of a content, from the offset base on, and
// adds the bytes that are sent to counter. It comes before the first Write.
func (x *Exchange) CountBody(counter *atomic.Int64, base int64) { x.counted, x.base = counter, base }

// Reply sends a whole answer; to a HEAD request without the body. An empty content
// type sets no header.
func (x *Exchange) Reply(status int, contentType string, body []byte) {
	if contentType != "" {
		x.Header().Set("Content-Type", contentType)
	}
	x.Header().Set("Content-Length", strconv.Itoa(len(body)))
	x.WriteHeader(status)
	if !x.Head() {
		_, _ = x.Write(body) // an error means that the client has left
	}
}

// ReplyJSON sends v as JSON. It panics if v cannot be encoded.
func (x *Exchange) ReplyJSON(status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("ecrtest: encoding an answer: " + err.Error())
	}
	x.Reply(status, contentType, body)
}

// WriteHeader sends the status and the headers. Those of the fault replace others.
func (x *Exchange) WriteHeader(status int) {
	maps.Copy(x.Header(), x.fault.Header)
	x.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the body.
func (x *Exchange) Write(p []byte) (int, error) {
	var n int
	for n < len(p) {
		x.stop()
		m, err := x.send(p[n : n+x.untilStop(len(p)-n)])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// stop stalls or cuts the body if the fault says so at this position.
func (x *Exchange) stop() {
	if at := x.fault.StallAfter; at != nil && *at == x.sent {
		x.Flush()
		x.awaitRemoval()
		x.fault.StallAfter = nil
	}
	if at := x.fault.CutAfter; at != nil && *at == x.sent {
		x.Flush()
		panic(http.ErrAbortHandler)
	}
}

// untilStop returns how many of n bytes may be sent before stop must be called
// again.
func (x *Exchange) untilStop(n int) int {
	for _, at := range []*int64{x.fault.StallAfter, x.fault.CutAfter} {
		if at != nil && *at > x.sent {
			n = int(min(int64(n), *at-x.sent))
		}
	}
	return n
}

// send writes p, with one bit flipped if the fault says so.
func (x *Exchange) send(p []byte) (int, error) {
	if at := x.fault.FlipBit; at != nil {
		if i := *at - x.base - x.sent; i >= 0 && i < int64(len(p)) {
			p = append([]byte(nil), p...)
			p[i] ^= 1
		}
	}
	// Bytes are counted before they are written, so that a client that has received a
	// byte finds it counted.
	if x.counted != nil {
		x.counted.Add(int64(len(p)))
	}
	n, err := x.ResponseWriter.Write(p)
	if x.counted != nil {
		x.counted.Add(int64(n - len(p)))
	}
	x.sent += int64(n)
	return n, err
}

// Flush hands what was written to the connection. An error means that the client
// has left, which the next write reports too.
func (x *Exchange) Flush() { _ = http.NewResponseController(x.ResponseWriter).Flush() }

// Pause waits for d. It ends the exchange if the client leaves.
func (x *Exchange) Pause(d time.Duration) {
	if sleep(x.Request.Context(), d) != nil {
		panic(http.ErrAbortHandler)
	}
}

// awaitRemoval waits until the fault is removed. It ends the exchange if the client
// leaves or the server closes.
func (x *Exchange) awaitRemoval() {
	select {
	case <-x.removed:
	case <-x.Request.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

// sleep waits for d, or for the end of ctx, and returns its error. A d of 0 or less
// returns nil at once.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
