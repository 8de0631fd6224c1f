package ecrtest

import (
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// maxChunk is how many bytes are made and written at a time: enough that
	// system calls do not count, and little enough to stay in the L2 cache.
	maxChunk = 256 << 10
	// minChunk bounds how often a slow answer wakes up.
	minChunk = 512
	// chunksPerSecond is how finely a limited bandwidth is spread over time.
	chunksPerSecond = 200
	// maxCatchUp is how far an answer may lag behind its bandwidth, because a
	// timer or the client was late, and still make good for it.
	maxCatchUp = 20 * time.Millisecond
)

// storageError is an error in S3's form.
type storageError struct {
	status     int
	XMLName    xml.Name `xml:"Error"`
	Code       string
	Message    string
	AmzExpires int64  `xml:"X-Amz-Expires,omitempty"` // seconds
	Expires    string `xml:",omitempty"`
	ServerTime string `xml:",omitempty"`
}

func (s *Server) serveStorage(w http.ResponseWriter, r *http.Request) {
	s.mu.RLock()
	b := s.objects[r.URL.Path]
	s.mu.RUnlock()
	var content digest.Digest
	if b != nil {
		content = b.digest
		b.counts.requests.Add(1)
	}
	s.exchange(w, r, subject{op: Storage, content: content}, func(x *exchange) { s.answerObject(x, b) })
}

// answerObject answers a GET of a signed URL. The method is signed: no other
// gets here.
func (s *Server) answerObject(x *exchange, b *blob) {
	h := x.Header()
	h.Set("Server", "AmazonS3")
	if refusal := s.checkURL(x.r); refusal != nil {
		x.failStorage(*refusal)
		return
	}
	if b == nil {
		x.failStorage(storageError{
			status: http.StatusNotFound, Code: "NoSuchKey", Message: "The specified key does not exist.",
		})
		return
	}
	size, etag := b.content.Size(), strconv.Quote(b.digest.Encoded()[:32])
	start, n, status := int64(0), size, http.StatusOK
	if !x.fault.NoRange {
		h.Set("Accept-Ranges", "bytes")
		if cond := x.r.Header.Get("If-Range"); cond == "" || cond == etag {
			start, n, status = selectRange(x.r.Header.Get("Range"), size)
		}
	}
	switch status {
	case http.StatusRequestedRangeNotSatisfiable:
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		x.failStorage(storageError{
			status: status, Code: "InvalidRange", Message: "The requested range is not satisfiable",
		})
		return
	case http.StatusPartialContent:
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, start+n-1, size))
	}
	h.Set("Etag", etag)
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	x.WriteHeader(status)
	x.counts, x.base = &b.counts, start
	s.stream(x, b.content, start, n)
}

// selectRange returns which bytes of a content a Range header asks for, and
// the status that says so. Like S3 it gives everything, with 200, where it is
// asked for several ranges or does not understand (RFC 9110, section 14.2).
func selectRange(header string, size int64) (start, n int64, status int) {
	all := func() (int64, int64, int) { return 0, size, http.StatusOK }
	spec, ok := strings.CutPrefix(header, "bytes=")
	if !ok {
		return all()
	}
	first, last, ok := strings.Cut(spec, "-")
	if !ok {
		return all()
	}
	if first == "" {
		suffix, err := parsePosition(last)
		if err != nil {
			return all()
		}
		if suffix == 0 || size == 0 {
			return 0, 0, http.StatusRequestedRangeNotSatisfiable
		}
		n = min(suffix, size)
		return size - n, n, http.StatusPartialContent
	}
	start, err := parsePosition(first)
	if err != nil {
		return all()
	}
	end := size - 1
	if last != "" {
		l, err := parsePosition(last)
		if err != nil || l < start {
			return all()
		}
		end = min(l, end)
	}
	if start >= size {
		return 0, 0, http.StatusRequestedRangeNotSatisfiable
	}
	return start, end - start + 1, http.StatusPartialContent
}

// parsePosition reads digits and nothing else: no sign.
func parsePosition(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

// stream sends n bytes of a content from start on, at the server's bandwidth.
// It ends early when the client leaves.
func (s *Server) stream(x *exchange, c Content, start, n int64) {
	buf := s.chunks.Get().(*[]byte)
	defer s.chunks.Put(buf)
	var schedule pacer
	for n > 0 {
		rate := s.bandwidth.Load()
		chunk := (*buf)[:min(n, chunkSize(rate))]
		if m, err := c.ReadAt(chunk, start); m < len(chunk) {
			panic(fmt.Errorf("ecrtest: reading a blob at %d: %w", start, err))
		}
		if err := schedule.wait(x.r.Context(), len(chunk), rate); err != nil {
			panic(http.ErrAbortHandler)
		}
		if _, err := x.Write(chunk); err != nil {
			return
		}
		if rate > 0 {
			x.flush() // or small chunks would wait for each other
		}
		start += int64(len(chunk))
		n -= int64(len(chunk))
	}
}

// chunkSize returns how much to send at a time at a rate in bytes per second.
func chunkSize(rate int64) int64 {
	if rate <= 0 {
		return maxChunk
	}
	return min(max(rate/chunksPerSecond, minChunk), maxChunk)
}

// pacer spreads the bytes of one answer over time, by a schedule: that a timer
// is late does not add up.
type pacer struct{ due time.Time }

// wait returns when n more bytes would have passed at a rate in bytes per
// second.
func (p *pacer) wait(ctx context.Context, n int, rate int64) error {
	if rate <= 0 {
		p.due = time.Time{}
		return ctx.Err()
	}
	now := time.Now()
	if p.due.IsZero() {
		p.due = now
	} else if earliest := now.Add(-maxCatchUp); p.due.Before(earliest) {
		p.due = earliest
	}
	p.due = p.due.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	return pause(ctx, p.due.Sub(now))
}

func (x *exchange) failStorage(e storageError) {
	body, err := xml.Marshal(e)
	if err != nil {
		panic("ecrtest: encoding an error: " + err.Error())
	}
	x.reply(e.status, "application/xml", append([]byte(xml.Header), body...))
}
