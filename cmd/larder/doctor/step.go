package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Step is one thing that was examined. Its JSON is what "larder doctor --json"
// prints.
type Step struct {
	// Upstream is the host that the step is about; "" for this machine's own.
	Upstream string `json:"upstream,omitempty"`
	// Name is the same in every version, such as "registry-dns".
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Detail is what was seen, and Advice what to do about it; it may be "". They are
	// for people and hold no secrets.
	Detail  string  `json:"detail"`
	Advice  string  `json:"advice,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Status is how a step ended.
type Status string

// The results of a step.
const (
	OK      Status = "ok"
	Failed  Status = "failed"
	Warning Status = "warning"
	Skipped Status = "skipped" // it does not apply, or what it needs has failed
)

// finding is the result of a step.
type finding struct {
	status         Status
	detail, advice string
}

func passed(format string, args ...any) finding {
	return finding{status: OK, detail: fmt.Sprintf(format, args...)}
}

func skipped(detail string) finding { return finding{status: Skipped, detail: detail} }

// skippedAfter is the finding of a step that needs one that failed.
func skippedAfter(failed string) finding { return skipped("not tried, since " + failed + " failed") }

func warning(detail, advice string) finding {
	return finding{status: Warning, detail: detail, advice: advice}
}

func failed(err error, advice string) finding {
	return finding{status: Failed, detail: err.Error(), advice: advice}
}

// examination takes one step after the other. It belongs to one goroutine.
type examination struct {
	ctx     context.Context
	timeout time.Duration // of each step
	show    func(Step)    // may be nil

	upstream string // that the steps are about
	steps    []Step
	causes   map[string]string // of steps about this upstream that failed or were skipped: the step that failed
}

func newExamination(ctx context.Context, timeout time.Duration, show func(Step)) *examination {
	return &examination{ctx: ctx, timeout: timeout, show: show, causes: make(map[string]string)}
}

// about begins the steps about an upstream.
func (e *examination) about(upstream string) {
	e.upstream = upstream
	clear(e.causes)
}

var errStepTimeout = errors.New("no answer within the time of a step (--timeout)")

// step takes one step, unless a step that it needs failed.
func (e *examination) step(name string, needs []string, look func(ctx context.Context) finding) {
	for _, need := range needs {
		if cause := e.causes[need]; cause != "" {
			e.causes[name] = cause
			e.add(name, skippedAfter(cause), 0)
			return
		}
	}
	ctx, cancel := context.WithTimeoutCause(e.ctx, e.timeout, errStepTimeout)
	defer cancel()
	began := time.Now()
	f := look(ctx)
	e.add(name, f, time.Since(began))
}

// add records a step that is done.
func (e *examination) add(name string, f finding, took time.Duration) {
	if f.status == Failed {
		e.causes[name] = name
	}
	s := Step{e.upstream, name, f.status, f.detail, f.advice, took.Seconds()}
	e.steps = append(e.steps, s)
	if e.show != nil {
		e.show(s)
	}
}
