package daemon

import (
	"bytes"
	"io"
	"sync"
	"time"
)

const (
	// logBuffer is how many bytes of the log wait for a reader that is slow: some thousand
	// lines. Further lines are dropped.
	logBuffer = 1 << 20
	// logFlush is how long the end of the process waits for a reader that takes nothing.
	logFlush = 2 * time.Second
	// logPause is how long lines that follow a write wait for others: a write, and a wake-up of the
	// goroutine, for each line took a tenth of a small request's time.
	logPause = 5 * time.Millisecond
)

// LogWriter passes a log on to a file that may be a pipe, and never waits for it: requests
// must not hang because nobody reads the log. A line is written at once, and lines that follow
// within 5 ms together. It keeps up to 1 MiB that was not read yet. It drops lines beyond that, and lines that cannot be written, and counts them.
//
// Its methods may be called from several goroutines at once. One goroutine writes to the
// file, until Close.
type LogWriter struct {
	out  io.Writer
	wake chan struct{} // has a value when there is something to write; capacity 1
	stop chan struct{} // closed by Close
	done chan struct{} // closed when the last write is over

	mu       sync.Mutex // guards what follows
	waiting  []byte     // whole lines
	dropped  int        // lines, since the latest report
	report   func(lines int)
	isClosed bool
}

// NewLogWriter returns a LogWriter for a file. The caller closes it.
func NewLogWriter(out io.Writer) *LogWriter {
	l := &LogWriter{out: out, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}), report: func(int) {}}
	go l.run()
	return l
}

// OnDrop has report be called with the number of lines that were dropped, once lines can be
// written again. It may write to the log.
func (l *LogWriter) OnDrop(report func(lines int)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report = report
}

// Write takes one or more whole lines. It never fails.
func (l *LogWriter) Write(lines []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed || len(l.waiting)+len(lines) > logBuffer {
		l.dropped += bytes.Count(lines, []byte("\n"))
		return len(lines), nil
	}
	l.waiting = append(l.waiting, lines...)
	l.wakeLocked()
	return len(lines), nil
}

func (l *LogWriter) wakeLocked() {
	select {
	case l.wake <- struct{}{}:
	default: // it has a value already
	}
}

// Close writes what waits. It gives up after two seconds if the file takes nothing; then the
// goroutine ends with the process. Lines that come later are dropped.
func (l *LogWriter) Close() error {
	l.mu.Lock()
	if !l.isClosed {
		l.isClosed = true
		close(l.stop)
	}
	l.wakeLocked()
	l.mu.Unlock()
	timer := time.NewTimer(logFlush)
	defer timer.Stop()
	select {
	case <-l.done:
	case <-timer.C:
	}
	return nil
}

// run writes until Close was called and nothing waits.
func (l *LogWriter) run() {
	defer close(l.done)
	var spare []byte
	for range l.wake {
		lines, isClosed := l.take(spare)
		if l.pass(lines); isClosed {
			return
		}
		spare = lines
		l.rest()
	}
}

// rest lets lines come together.
func (l *LogWriter) rest() {
	timer := time.NewTimer(logPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.stop:
	}
}

// take returns the lines that wait, and keeps spare for the next ones.
func (l *LogWriter) take(spare []byte) (lines []byte, isClosed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines, l.waiting = l.waiting, spare[:0]
	return lines, l.isClosed
}

// pass writes lines to the file. If that succeeds, and lines were dropped before, it reports
// them, as soon as there is space for the report.
func (l *LogWriter) pass(lines []byte) {
	if len(lines) == 0 {
		return
	}
	_, err := l.out.Write(lines)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.dropped += bytes.Count(lines, []byte("\n"))
		return
	}
	if dropped, report := l.takeDropped(); dropped > 0 {
		report(dropped)
	}
}

// takeDropped returns how many lines to report, and the function to do it with.
func (l *LogWriter) takeDropped() (lines int, report func(int)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > logBuffer/2 {
		return 0, nil // the lines that wait are written next
	}
	lines, l.dropped = l.dropped, 0
	return lines, l.report
}
