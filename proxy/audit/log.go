// Package audit writes one line for each decision about an image: who asked for what, and whether
// they got it. FORMAT.md describes the lines.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Settings say where the lines go.
type Settings struct {
	// File is an absolute path, Stdout, or "" for nowhere.
	File string
	// Required refuses an image whose line cannot be written.
	Required bool
}

// patience is how long a decision waits for its line to be written: a disk that takes longer hangs,
// and clients fall back to the registry sooner than they would from a silent Larder.
const patience = 2 * time.Second

// Log writes lines. Its methods are safe for concurrent use, but one goroutine at a time calls Use,
// and Close is called last. A nil Log is one that is off.
type Log struct {
	log     *slog.Logger
	written metric.Int64Counter
	on      atomic.Bool    // whether there is a file
	running sync.WaitGroup // writes and closes files

	mu       sync.Mutex // guards what follows and is not held while a disk is waited for
	settings Settings
	out      *output // nil if lines are not written
	failure  error   // of the last line; nil if it was written
}

// Open begins to write lines. A file that cannot be opened is no error: see [Log.Degraded].
func Open(s Settings, meter metric.MeterProvider, log *slog.Logger) (*Log, error) {
	written, err := meter.Meter("github.com/larder-registry/larder/proxy/audit").Int64Counter("larder.audit.lines",
		metric.WithUnit("{line}"), metric.WithDescription("Decisions about images for the audit, by result: written or failed."))
	if err != nil {
		return nil, fmt.Errorf("set up metrics: %w", err)
	}
	for _, result := range []string{"written", "failed"} {
		written.Add(context.Background(), 0, metric.WithAttributes(attribute.String("result", result)))
	}
	l := &Log{log: log, written: written}
	l.Use(s)
	return l, nil
}

// Use closes the file and goes on with these settings. A file of the same name is opened again.
func (l *Log) Use(s Settings) {
	out, err := open(s.File)
	l.use(s, out, err)
}

// use is Use with the destination of the lines. err is why it cannot be written.
//
// It waits for the line that is being written, since two writers of one file could overwrite each
// other's lines, but not for a disk that hangs.
func (l *Log) use(s Settings, out io.WriteCloser, err error) {
	l.mu.Lock()
	before := l.out
	l.mu.Unlock()
	idle := before != nil && before.acquire(patience)
	l.mu.Lock()
	l.settings, l.out = s, nil
	if out != nil {
		l.out = newOutput(out)
	}
	l.on.Store(out != nil)
	changed := l.note(err)
	l.mu.Unlock()
	l.tell(changed, s, err)
	switch {
	case idle:
		before.close()
	case before != nil:
		l.running.Go(func() {
			before.slot <- struct{}{}
			before.close()
		})
	}
}

// On reports whether lines are written.
func (l *Log) On() bool { return l != nil && l.on.Load() }

// errNotWritten is the error for a client whose image is refused. It is not that of the disk, which
// has the path of the file, and may look like one of the upstream's.
var errNotWritten = errors.New("the audit cannot be written and audit.required is set, so this image is not served; " +
	"see /readyz of this Larder for the reason, or pull from the registry itself")

// errStalled is the error of a line that was not written in time.
var errStalled = fmt.Errorf("no line could be written for %v: the disk of the file hangs", patience)

// Write writes the line of an entry; the time is added. It blocks until the kernel has taken the
// line, ctx ends or patience is over, and not at all while an earlier line hangs. It returns an
// error only if the settings require the line and it was not written by then.
func (l *Log) Write(ctx context.Context, e Entry) error {
	if !l.On() {
		return nil
	}
	e.Time = time.Now()
	raw, err := e.encode()
	if err == nil {
		err = l.append(ctx, raw)
	}
	l.mu.Lock()
	required := l.settings.Required
	l.mu.Unlock()
	if err != nil && required {
		return errNotWritten
	}
	return nil
}

// append has a line written, and returns when that has ended or is waited for no longer.
func (l *Log) append(ctx context.Context, raw []byte) error {
	bounded, cancel := context.WithTimeoutCause(ctx, patience, errStalled)
	defer cancel()
	out, err := l.acquire(bounded)
	if err != nil {
		if ctx.Err() == nil { // else it is no fault of the disk
			l.count(err)
		}
		return err
	}
	if out == nil {
		return nil // it was turned off meanwhile
	}
	done := make(chan error, 1)
	l.running.Go(func() {
		err := out.append(raw)
		l.ended(out, err)
		out.release()
		done <- err
	})
	select {
	case err := <-done:
		return err
	case <-bounded.Done():
		l.gaveUp(out)
		return context.Cause(bounded)
	}
}

// acquire returns the output with its slot, for one line, or nil if there is no output.
func (l *Log) acquire(ctx context.Context) (*output, error) {
	for {
		l.mu.Lock()
		out := l.out
		stalled := out != nil && out.stalled()
		l.mu.Unlock()
		switch {
		case out == nil:
			return nil, nil
		case stalled:
			return nil, errStalled
		}
		select {
		case out.slot <- struct{}{}:
		case <-ctx.Done():
			l.gaveUp(out)
			return nil, context.Cause(ctx)
		}
		if out.closed { // by Use, which has another
			out.release()
			continue
		}
		l.mu.Lock()
		out.began = time.Now()
		l.mu.Unlock()
		return out, nil
	}
}

// gaveUp keeps and logs that an output hangs, if it does.
func (l *Log) gaveUp(out *output) {
	l.mu.Lock()
	s, changed := l.settings, l.out == out && out.stalled() && l.note(errStalled)
	l.mu.Unlock()
	l.tell(changed, s, errStalled)
}

// ended keeps, logs and counts how the writing of a line ended.
func (l *Log) ended(out *output, err error) {
	l.mu.Lock()
	out.began = time.Time{}
	s, changed := l.settings, l.out == out && l.note(err) // a line of an output before says nothing of this one
	l.mu.Unlock()
	l.tell(changed, s, err)
	l.count(err)
}

// count counts a line that was written, or was not for an error.
func (l *Log) count(err error) {
	result := "written"
	if err != nil {
		result = "failed"
	}
	l.written.Add(context.Background(), 1, metric.WithAttributes(attribute.String("result", result)))
}

// note keeps how the last line went, and reports whether that changed. The caller has the lock.
func (l *Log) note(err error) (changed bool) {
	changed = (err == nil) != (l.failure == nil)
	l.failure = err
	return changed
}

// tell logs a change of state.
func (l *Log) tell(changed bool, s Settings, err error) {
	switch {
	case !changed:
	case err != nil:
		l.log.Error("the audit cannot be written", "file", s.File, "required", s.Required, "error", err)
	case s.File != "":
		l.log.Info("the audit is written again", "file", s.File)
	}
}

// Degraded returns why the last line was not written, or nil.
func (l *Log) Degraded() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failure == nil:
		return nil
	case l.settings.Required:
		return fmt.Errorf("images are refused, since the audit cannot be written: %w", l.failure)
	}
	return fmt.Errorf("the audit cannot be written: %w", l.failure)
}

// Close ends the writing. It waits for the lines that are being written; the error says that the
// disk hangs.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.use(Settings{}, nil, nil)
	ended := make(chan struct{})
	go func() {
		l.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("close the audit: %w", errStalled)
	}
}
