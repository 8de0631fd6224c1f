package storage

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
)

const (
	// maxChunk is how many bytes are generated and written at a time: enough that
	// system calls cost little, and few enough to stay in the L2 cache.
	maxChunk = 256 << 10
	// minChunk bounds how often a slow answer wakes up.
	minChunk = 512
	// chunksPerSecond is how finely a limited bandwidth is spread over time.
	chunksPerSecond = 200
	// maxCatchUp is how far an answer may lag behind its bandwidth, because a timer or
	// the client was late, and still catch up.
	maxCatchUp = 20 * time.Millisecond
)

// sender sends contents at a limited bandwidth.
type sender struct {
	bandwidth atomic.Int64 // bytes per second of each answer, 0 for no limit
	chunks    sync.Pool    // of *[]byte, maxChunk long
}

// send sends n bytes of a content from start on. It ends early if the client
// leaves.
func (s *sender) send(x *frontend.Exchange, c Content, start, n int64) {
	buf, ok := s.chunks.Get().(*[]byte)
	if !ok {
		buf = new(make([]byte, maxChunk))
	}
	defer s.chunks.Put(buf)
	var schedule pacer
	for n > 0 {
		rate := s.bandwidth.Load()
		chunk := (*buf)[:min(n, chunkSize(rate))]
		if m, err := c.ReadAt(chunk, start); m < len(chunk) {
			panic(fmt.Errorf("ecrtest: reading a blob at %d: %w", start, err))
		}
		if x.Request.Context().Err() != nil {
			panic(http.ErrAbortHandler)
		}
		x.Pause(schedule.delay(len(chunk), rate))
		if _, err := x.Write(chunk); err != nil {
			return
		}
		if rate > 0 {
			x.Flush() // or small chunks would wait in the buffer for more
		}
		start += int64(len(chunk))
		n -= int64(len(chunk))
	}
}

// chunkSize returns how many bytes to send at a time at a rate in bytes per second.
func chunkSize(rate int64) int64 {
	if rate <= 0 {
		return maxChunk
	}
	return min(max(rate/chunksPerSecond, minChunk), maxChunk)
}

// pacer spreads the bytes of one answer over time by a schedule, so that the delays
// of late timers do not add up.
type pacer struct{ due time.Time }

// delay returns how long to wait before n more bytes at a rate in bytes per second;
// a rate of 0 is no limit.
func (p *pacer) delay(n int, rate int64) time.Duration {
	if rate <= 0 {
		p.due = time.Time{}
		return 0
	}
	now := time.Now()
	if p.due.IsZero() {
		p.due = now
	} else if earliest := now.Add(-maxCatchUp); p.due.Before(earliest) {
		p.due = earliest
	}
	p.due = p.due.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	return p.due.Sub(now)
}
