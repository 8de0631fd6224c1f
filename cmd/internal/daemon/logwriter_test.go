package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowFile is a file whose writes wait until they are let through, or fail.
type slowFile struct {
	let chan error // one value for each write; closed: all succeed

	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (f *slowFile) Write(p []byte) (int, error) {
	if err := <-f.let; err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text.Write(p)
}

func (f *slowFile) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text.String()
}

// settle waits until the goroutine of a LogWriter has written so many times.
func settle(writes int) {
	time.Sleep(time.Duration(writes) * logPause) //nolint:forbidigo // synctest's clock: no real time passes
	synctest.Wait()
}

// countedFile counts its writes.
type countedFile struct{ writes []string }

func (f *countedFile) Write(p []byte) (int, error) {
	f.writes = append(f.writes, string(p))
	return len(p), nil
}

func TestLinesThatComeTogetherAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := &countedFile{}
		log := NewLogWriter(file)
		fmt.Fprintln(log, "alone")
		synctest.Wait()
		want := []string{"alone\n"}
		if !slices.Equal(file.writes, want) {
			t.Errorf("without a pause before: %q, want %q", file.writes, want)
		}
		for range 3 {
			fmt.Fprintln(log, "one of many")
		}
		settle(1)
		fmt.Fprintln(log, "at the end")
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		want = append(want, strings.Repeat("one of many\n", 3), "at the end\n")
		if !slices.Equal(file.writes, want) {
			t.Errorf("%q, want %q", file.writes, want)
		}
	})
}

func TestLogThatNobodyReadsHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := &slowFile{let: make(chan error)}
		log := NewLogWriter(file)
		log.OnDrop(func(lines int) { fmt.Fprintf(log, "%d lines were dropped\n", lines) })
		line := []byte(strings.Repeat("x", 1023) + "\n")
		fmt.Fprintln(log, "first")
		synctest.Wait() // the goroutine waits for the file
		const n = 5000
		for range n {
			if _, err := log.Write(line); err != nil {
				t.Fatal(err)
			}
		}
		close(file.let)
		settle(3)
		kept := strings.Count(file.String(), "x\n")
		if kept != logBuffer/len(line) {
			t.Errorf("%d lines were kept, want %d", kept, logBuffer/len(line))
		}
		if want := fmt.Sprintf("\n%d lines were dropped\n", n-kept); !strings.HasPrefix(file.String(), "first\n") || strings.Count(file.String(), want) != 1 {
			t.Errorf("the log does not say %q", want)
		}
		fmt.Fprintln(log, "last")
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		if !strings.HasSuffix(file.String(), "\nlast\n") {
			t.Error("the last line was not written at the end")
		}
	})
}

func TestLogThatCannotBeWrittenIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := &slowFile{let: make(chan error)}
		log := NewLogWriter(file)
		log.OnDrop(func(lines int) { fmt.Fprintf(log, "%d lines were dropped\n", lines) })
		for range 3 {
			fmt.Fprintln(log, "lost")
			file.let <- errors.New("closed")
			synctest.Wait()
		}
		close(file.let)
		fmt.Fprintln(log, "kept")
		settle(3)
		if got, want := file.String(), "kept\n3 lines were dropped\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		fmt.Fprintln(log, "too late")
	})
}

func TestEndDoesNotWaitForALogThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := &slowFile{let: make(chan error)}
		log := NewLogWriter(file)
		fmt.Fprintln(log, "line")
		begin := time.Now()
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > logFlush {
			t.Errorf("it took %v", took)
		}
		close(file.let)
	})
}
