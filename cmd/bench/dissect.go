package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// dissect counts what one request costs a server inside, where that can be seen: system calls with strace, and
// allocations where the server tells of them.
func (l *lab) dissect(ctx context.Context, s *server, q question, into measures) error {
	if n, err := allocations(ctx, s, q, countedAllocs/int(l.scale)); err == nil {
		into[allocs] = n
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		return nil //nolint:nilerr // it is named as missing
	}
	n, err := systemCalls(ctx, strace, s, q, countedSyscalls/int(l.scale))
	if err != nil {
		return err
	}
	into[syscalls] = n
	return nil
}

// Among so many requests, what it takes to ask for the count does not show. Under strace a request takes a millisecond.
const (
	countedAllocs   = 20_000
	countedSyscalls = 2_000
)

// allocations returns how many objects Go allocates for a request, by what the server's metrics say.
func allocations(ctx context.Context, s *server, q question, requests int) (float64, error) {
	before, err := mallocs(ctx, s)
	if err != nil {
		return 0, err
	}
	if _, err := askFor(ctx, s, q, func(asked int) bool { return asked < requests }); err != nil {
		return 0, err
	}
	after, err := mallocs(ctx, s)
	return (after - before) / float64(requests), err
}

func mallocs(ctx context.Context, s *server) (float64, error) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "go_memstats_mallocs_total "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.New("the server does not count its allocations")
}

// straceTotal is the last line of strace's summary: the calls are the number before errors, which may be missing.
var straceTotal = regexp.MustCompile(`(?m)^100\.00\s+\S+\s+(?:\d+\s+)?(\d+)\s+(?:\d+\s+)?total$`)

// systemCalls returns how many a request takes, what the server does of itself meanwhile included.
func systemCalls(ctx context.Context, strace string, s *server, q question, requests int) (float64, error) {
	summary := filepath.Join(s.dir, "strace")
	args := []string{"-f", "-c", "-o", summary}
	pids := s.proc.pids()
	for _, pid := range pids {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	cmd := exec.CommandContext(ctx, strace, args...)
	said, err := cmd.StderrPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	attached := bufio.NewReader(said)
	for range pids {
		if _, err := attached.ReadString('\n'); err != nil {
			return 0, errors.Join(fmt.Errorf("strace did not attach: %w", err), cmd.Wait())
		}
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, attached) // which ends with strace
	}()
	_, err = askFor(ctx, s, q, func(asked int) bool { return asked < requests })
	_ = cmd.Process.Signal(syscall.SIGINT) // upon which it prints the summary, and ends by the signal
	<-drained
	_ = cmd.Wait()
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(summary)
	if err != nil {
		return 0, err
	}
	found := straceTotal.FindSubmatch(bytes.TrimSpace(text))
	if found == nil {
		return 0, fmt.Errorf("cannot read strace's summary:\n%s", text)
	}
	calls, err := strconv.ParseFloat(string(found[1]), 64)
	return calls / float64(requests), err
}
