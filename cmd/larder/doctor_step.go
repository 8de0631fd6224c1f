package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Step is one thing that "larder doctor" looked at, as it prints it by --json.
type Step struct {
	// Upstream is the host that the step is about; "" for this machine's own.
	Upstream string `json:"upstream,omitempty"`
	// Name is the same in every version, such as "registry-dns".
	Name   string     `json:"name"`
	Status stepStatus `json:"status"`
	// Detail is what was seen, and Advice what to do about it. They are for humans
	// and hold no secrets.
	Detail  string  `json:"detail"`
	Advice  string  `json:"advice,omitempty"`
	Seconds float64 `json:"seconds"`
}

// stepStatus is how a step ended.
type stepStatus string

const (
	stepOK      stepStatus = "ok"
	stepFailed  stepStatus = "failed"
	stepWarning stepStatus = "warning"
	stepSkipped stepStatus = "skipped" // it does not apply, or what it needs has failed
)

// finding is what a step comes to.
type finding struct {
	status         stepStatus
	detail, advice string
}

func fine(format string, args ...any) finding {
	return finding{status: stepOK, detail: fmt.Sprintf(format, args...)}
}

func notApplicable(detail string) finding { return finding{status: stepSkipped, detail: detail} }

func warn(detail, advice string) finding {
	return finding{status: stepWarning, detail: detail, advice: advice}
}

func wrong(err error, advice string) finding {
	return finding{status: stepFailed, detail: err.Error(), advice: advice}
}

// examination takes one step after the other.
type examination struct {
	ctx     context.Context
	timeout time.Duration // of each step
	show    func(Step)

	upstream string // that the steps are about
	steps    []Step
	missing  map[string]string // what cannot be built upon, to the step that failed
}

func newExamination(ctx context.Context, timeout time.Duration, show func(Step)) *examination {
	return &examination{ctx: ctx, timeout: timeout, show: show, missing: make(map[string]string)}
}

// about begins the steps about an upstream.
func (e *examination) about(upstream string) {
	e.upstream = upstream
	clear(e.missing)
}

var errStepTimeout = errors.New("no answer within the time of a step (--timeout)")

// step takes one step, unless one that it needs is missing.
func (e *examination) step(name string, needs []string, look func(ctx context.Context) finding) {
	for _, need := range needs {
		if cause := e.missing[need]; cause != "" {
			e.missing[name] = cause
			e.add(name, notApplicable("not tried, since "+cause+" failed"), 0)
			return
		}
	}
	ctx, cancel := context.WithTimeoutCause(e.ctx, e.timeout, errStepTimeout)
	defer cancel()
	began := time.Now()
	f := look(ctx)
	e.add(name, f, time.Since(began))
}

// add notes a step that is done.
func (e *examination) add(name string, f finding, took time.Duration) {
	if f.status == stepFailed {
		e.missing[name] = name
	}
	s := Step{e.upstream, name, f.status, f.detail, f.advice, took.Seconds()}
	e.steps = append(e.steps, s)
	e.show(s)
}

func (e *examination) count(status stepStatus) int {
	var n int
	for _, s := range e.steps {
		if s.Status == status {
			n++
		}
	}
	return n
}
