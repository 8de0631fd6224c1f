package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
)

// traceCalls counts the system calls of processes while load runs. strace writes its summary to a file.
func traceCalls(ctx context.Context, pids []int, summary string, load func() error) (int64, error) {
	args := []string{"-f", "-c", "-o", summary}
	for _, pid := range pids {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	cmd := exec.CommandContext(ctx, "strace", args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	lines := bufio.NewReader(stderr)
	for range pids { // strace prints a line for each process that it attaches to
		if _, err := lines.ReadString('\n'); err != nil {
			return 0, errors.Join(fmt.Errorf("strace did not attach: %w", err), cmd.Wait())
		}
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, lines) // ends when strace ends
	}()
	err = load()
	_ = cmd.Process.Signal(syscall.SIGINT) // strace prints the summary, and ends by the signal
	<-drained
	_ = cmd.Wait()
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(summary)
	if err != nil {
		return 0, err
	}
	return totalCalls(text)
}

// straceTotal is the last line of strace's summary. The calls are the number before the errors, which may be missing.
var straceTotal = regexp.MustCompile(`(?m)^100\.00\s+\S+\s+(?:\d+\s+)?(\d+)\s+(?:\d+\s+)?total$`)

// totalCalls reads the number of calls from strace's summary.
func totalCalls(summary []byte) (int64, error) {
	found := straceTotal.FindSubmatch(bytes.TrimSpace(summary))
	if found == nil {
		return 0, fmt.Errorf("strace's summary has no total:\n%s", summary)
	}
	return strconv.ParseInt(string(found[1]), 10, 64)
}
