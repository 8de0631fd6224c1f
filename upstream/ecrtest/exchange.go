package ecrtest

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// exchange is one request and the answer to it. Everything that is sent passes
// through its WriteHeader and Write, where the fault acts and bytes are counted.
type exchange struct {
	http.ResponseWriter
	r      *http.Request
	caller caller // who has signed it, or holds its token, once that is known

	fault Fault           // the zero Fault for none
	gone  <-chan struct{} // closed when the fault is removed

	counts *blobCounts // of the blob that the body is, or nil
	base   int64       // where in the content the body begins
	sent   int64       // bytes of the body
}

// exchange counts a request, lets a fault act on it, and answers it.
func (s *Server) exchange(w http.ResponseWriter, r *http.Request, of subject, answer func(*exchange)) {
	s.stats.count(of.op, r.Method)
	x := &exchange{ResponseWriter: w, r: r}
	x.fault, x.gone = s.faults.take(of)
	x.pause(time.Duration(s.latency.Load()))
	if x.fault.Notify != nil {
		x.fault.Notify()
	}
	x.pause(x.fault.Delay)
	if x.fault.Hang {
		x.hold()
	}
	if x.fault.Refuse {
		panic(http.ErrAbortHandler)
	}
	x.Header().Set("Date", s.opts.Now().UTC().Format(http.TimeFormat))
	refused := x.fault.refusal(of.op)
	if refused == nil && !s.limits.take(of.op, s.opts.Now()) {
		refused = throttled(of.op)
	}
	switch {
	case refused != nil:
		x.refuse(of.op, *refused)
	case x.fault.Status != 0:
		x.reply(x.fault.Status, "text/plain; charset=utf-8", []byte(x.fault.Body))
	default:
		answer(x)
	}
}

// head tells that the answer has no body.
func (x *exchange) head() bool { return x.r.Method == http.MethodHead }

// reply sends a whole answer. The request of HEAD gets its headers alone.
func (x *exchange) reply(status int, contentType string, body []byte) {
	if contentType != "" {
		x.Header().Set("Content-Type", contentType)
	}
	x.Header().Set("Content-Length", strconv.Itoa(len(body)))
	x.WriteHeader(status)
	if !x.head() {
		_, _ = x.Write(body) // an error says that the client has left
	}
}

// fail sends an error in the form of the distribution specification.
func (x *exchange) fail(status int, code, message string) {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	x.replyJSON(status, "application/json; charset=utf-8", struct {
		Errors []entry `json:"errors"`
	}{[]entry{{code, message}}})
}

// replyJSON sends v, which json can encode.
func (x *exchange) replyJSON(status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("ecrtest: encoding an answer: " + err.Error())
	}
	x.reply(status, contentType, body)
}

// WriteHeader sends the status and the headers, the fault's above all others.
func (x *exchange) WriteHeader(status int) {
	maps.Copy(x.Header(), x.fault.Header)
	x.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the body, as the fault lets it.
func (x *exchange) Write(p []byte) (int, error) {
	var n int
	for n < len(p) {
		x.stop()
		m, err := x.send(p[n : n+x.room(len(p)-n)])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// stop stalls and cuts the body where it is due.
func (x *exchange) stop() {
	if at := x.fault.StallAfter; at != nil && *at == x.sent {
		x.flush()
		x.hold()
		x.fault.StallAfter = nil
	}
	if at := x.fault.CutAfter; at != nil && *at == x.sent {
		x.flush()
		panic(http.ErrAbortHandler)
	}
}

// room tells how many of n bytes may go out before stop must look again.
func (x *exchange) room(n int) int {
	for _, at := range []*int64{x.fault.StallAfter, x.fault.CutAfter} {
		if at != nil && *at > x.sent {
			n = int(min(int64(n), *at-x.sent))
		}
	}
	return n
}

// send writes p, with a bit of it turned over if the fault says so.
func (x *exchange) send(p []byte) (int, error) {
	if at := x.fault.FlipBit; at != nil {
		if i := *at - x.base - x.sent; i >= 0 && i < int64(len(p)) {
			p = append([]byte(nil), p...)
			p[i] ^= 1
		}
	}
	// Counted before: who has received a byte must find it counted.
	if x.counts != nil {
		x.counts.bytes.Add(int64(len(p)))
	}
	n, err := x.ResponseWriter.Write(p)
	if x.counts != nil {
		x.counts.bytes.Add(int64(n - len(p)))
	}
	x.sent += int64(n)
	return n, err
}

// flush hands what was written to the connection. An error says that the
// client has left, which the next write will find too.
func (x *exchange) flush() { _ = http.NewResponseController(x.ResponseWriter).Flush() }

// pause lets d pass. It ends the exchange when the client leaves meanwhile.
func (x *exchange) pause(d time.Duration) {
	if err := pause(x.r.Context(), d); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// hold waits until the fault is removed. It ends the exchange when the client
// leaves or the server closes.
func (x *exchange) hold() {
	select {
	case <-x.gone:
	case <-x.r.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

// pause lets d pass, or ctx end, whose error it returns.
func pause(ctx context.Context, d time.Duration) error {
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
