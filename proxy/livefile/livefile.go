// Package livefile reads files again when they have changed, so that an operator may replace them
// while they are in use.
package livefile

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// Every is the time between two looks at the files: reading some small ones costs nothing that is
// noticed.
const Every = 5 * time.Second

// Follower looks at files, whose paths are a T, for as long as Run runs. Its methods are safe for
// concurrent use, except that one goroutine at a time calls Use.
type Follower[T any] struct {
	load   func(files T) error
	failed func(error)
	next   chan T // that Run takes over

	// Run owns what follows.
	files   T
	problem string // that failed was told of
}

// New returns a Follower. load puts the contents of files to use if they have changed. Its error says
// why that is not possible: what was in use before stays. failed is told of each error once, until
// load succeeds or Use is called.
func New[T any](files T, load func(files T) error, failed func(error)) *Follower[T] {
	return &Follower[T]{load: load, failed: failed, next: make(chan T, 1), files: files}
}

// Use has Run read files at once. It does not wait for that.
func (f *Follower[T]) Use(files T) {
	select {
	case <-f.next: // files that were to be read, and now are not
	default:
	}
	f.next <- files
}

// Run follows the files until ctx ends.
func (f *Follower[T]) Run(ctx context.Context) {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case f.files = <-f.next:
			f.problem = "" // an operator who reloads is told again
		case <-tick.C:
		}
		f.Look()
	}
}

// Look reads the files, as Run does now and then. It is not called while Run runs.
func (f *Follower[T]) Look() {
	err := f.load(f.files)
	if err == nil {
		f.problem = ""
	} else if problem := err.Error(); problem != f.problem {
		f.problem = problem
		f.failed(err)
	}
}

// Read reads a regular file of at most so many bytes. It opens nothing else: opening a pipe would
// wait for its writer.
func Read(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, fmt.Errorf("%s: expected a file of at most %d bytes", path, most)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, most))
}
