package audit

import (
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/DeRuina/timberjack"
)

// Stdout is the File of an audit that goes to standard output.
const Stdout = "-"

// The bounds of a rotated file: at most some 1.1 GB are kept, about 4 million decisions.
const (
	maxSize = 100 // MB of the file
	maxOld  = 10  // files beside it
	maxAge  = 90  // days of a file beside it
)

// open returns what a file is written with, and nil if there is none. The error says that it cannot
// be written now; it is tried again with each line.
func open(file string) (io.WriteCloser, error) {
	switch file {
	case "":
		return nil, nil
	case Stdout:
		return stdout{}, nil
	}
	rotated := &timberjack.Logger{Filename: file, MaxSize: maxSize, MaxBackups: maxOld, MaxAge: maxAge, FileMode: 0o640}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return rotated, err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return rotated, err
	}
	return rotated, f.Close()
}

// stdout is standard output, which stays open.
type stdout struct{}

func (stdout) Write(p []byte) (int, error) { return os.Stdout.Write(p) }
func (stdout) Close() error                { return nil }

// output is where lines go.
type output struct {
	to    io.WriteCloser
	began time.Time // when the write that runs began, or zero; guarded by the Log's mu

	slot   chan struct{} // holds one element while a line is written or the output is closed; that goroutine owns what follows
	torn   bool          // the last line was written in part
	closed bool
}

func newOutput(to io.WriteCloser) *output { return &output{to: to, slot: make(chan struct{}, 1)} }

func (o *output) release() { <-o.slot }

// stalled reports whether a write runs that takes too long. The caller has the Log's mu.
func (o *output) stalled() bool { return !o.began.IsZero() && time.Since(o.began) >= patience }

// append writes a line, on a line of its own. The caller has the slot.
func (o *output) append(raw []byte) error {
	if o.torn {
		raw = append([]byte("\n"), raw...)
	}
	n, err := o.to.Write(raw)
	if err == nil && n < len(raw) {
		err = io.ErrShortWrite
	}
	switch {
	case err == nil:
		o.torn = false
	case n > 0:
		o.torn = true
	}
	return err
}

// acquire takes the slot, and reports false if it cannot be had for so long.
func (o *output) acquire(atMost time.Duration) bool {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case o.slot <- struct{}{}:
		return true
	case <-timer.C:
		return false
	}
}

// close closes the output. The caller has the slot, which close releases.
func (o *output) close() {
	o.closed = true
	_ = o.to.Close() // each line is written at once
	o.release()
}
