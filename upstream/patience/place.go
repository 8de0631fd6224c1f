package patience

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/semaphore"

	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// Places has a [Place] for each server. It is safe for concurrent use.
type Places struct {
	log   *slog.Logger
	known *lru.Cache[string, *Place]
}

// maxPlaces bounds the servers that are remembered.
const maxPlaces = 1024

// NewPlaces returns one that knows of no server. The log has the servers that fall
// silent, and those that answer again.
func NewPlaces(log *slog.Logger) *Places {
	known, _ := lru.New[string, *Place](maxPlaces) // fails only for a size that is not positive
	return &Places{log: log, known: known}
}

// Of returns the place with this host, or host:port.
func (p *Places) Of(host string) *Place {
	if known, ok := p.known.Get(host); ok {
		return known
	}
	fresh := &Place{host: host, log: p.log.With("host", host), silence: pace.NewBreaker(), second: semaphore.NewWeighted(maxSecond)}
	if known, ok, _ := p.known.PeekOrAdd(host, fresh); ok {
		return known
	}
	return fresh
}

// Place is what is known of one server: how long its answers take, and whether there
// are any. It is safe for concurrent use.
type Place struct {
	host    string
	log     *slog.Logger
	silence *pace.Breaker       // open while the server says nothing
	second  *semaphore.Weighted // for second questions on their way

	mu       sync.Mutex // guards what follows
	usual    time.Duration
	answered time.Time // when the latest answer came
}

const (
	// firstPatience is the least time before a question is put again. It is above the
	// slow answers of a healthy registry: ECR's are below one second.
	firstPatience = 2 * time.Second
	// slowness is how many times the usual time is waited.
	slowness = 3
	// smoothing is the weight of the past in the usual time: about eight answers.
	smoothing = 8
	// maxSecond bounds the second questions to one server at a time, as a server that
	// is slow from its load must not get twice as much of it. Others wait for their
	// turn: if all kept connections are dead, each answer takes a moment only.
	maxSecond = 4
	// probePatience is the least time for a question to a server that is known to be
	// silent. A client waits for it.
	probePatience = 3 * time.Second
)

// SilentError is the error of a question that was not sent, as its server has not
// answered of late. It unwraps to reply.ErrTimeout.
type SilentError struct{ host string }

func (e *SilentError) Error() string {
	return fmt.Sprintf("%s accepts requests and does not answer; it is not asked again yet", e.host)
}

func (*SilentError) Unwrap() error { return reply.ErrTimeout }

// patience returns how long an answer is waited for before its question is put again.
func (p *Place) patience() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(firstPatience, slowness*p.usual)
}

// observe records how long an answer took.
func (p *Place) observe(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answered = time.Now()
	if p.usual == 0 {
		p.usual = took
	}
	p.usual += (took - p.usual) / smoothing
}

// silentSince reports whether a question that ended without an answer says that the
// server is silent: it was waited for long enough, and nothing else was answered
// meanwhile.
func (p *Place) silentSince(began time.Time, timeout time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	enough := min(max(timeout/2, slowness*p.usual), timeout)
	return time.Since(began) >= enough && !p.answered.After(began)
}

// settle records the outcome of a question that began at that time.
func (p *Place) settle(ctx context.Context, began time.Time, timeout time.Duration, probe bool, err error) {
	switch {
	case err == nil:
		if p.silence.Succeeded() {
			p.log.Info("the server answers again")
		}
	case ctx.Err() != nil && p.silentSince(began, timeout):
		if p.silence.Failed(probe, true) {
			p.log.Warn("the server accepts requests and does not answer; one request at a time tries it, and others fail at once")
		}
	default:
		p.silence.Abandoned(probe)
	}
}

// Ask sends a question. If no answer begins in time, it sends the question again and
// returns the answer that comes first. The error is reply.ErrTimeout if there is none
// within the timeout, and a [SilentError] if the server is not asked.
func (p *Place) Ask(ctx context.Context, q Question) (*http.Response, error) {
	admitted, probe := p.silence.Enter()
	if !admitted {
		return nil, &SilentError{p.host}
	}
	timeout := q.Timeout
	if probe {
		timeout = min(timeout, max(probePatience, p.patience()))
	}
	began := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(timeout, func() { cancel(reply.ErrTimeout) })
	defer timer.Stop()
	resp, err := p.ask(ctx, q)
	p.settle(ctx, began, timeout, probe, err)
	if err != nil {
		if errors.Is(context.Cause(ctx), reply.ErrTimeout) {
			err = reply.ErrTimeout
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &body{resp.Body, func() { cancel(nil) }}
	return resp, nil
}
