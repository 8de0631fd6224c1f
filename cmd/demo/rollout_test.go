package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestRollOutFetchesEachByteOnce(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := give(t.Context(), t, options{}, &stdout, &stderr, "--nodes", "4"); status != exitDone {
		t.Errorf("exit status %d, want %d", status, exitDone)
	}
	text := stdout.String()
	for _, want := range []string{"upstream\n", "node 4 →", "✓ 4 nodes got 3.0 MB each", "The upstream sent 3.0 MB: each byte once."} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not shown", want)
		}
	}
	if n := strings.Count(text, "███████"); n != 4 {
		t.Errorf("%d nodes have the whole image", n)
	}
	if stderr.Len() > 0 {
		t.Errorf("on standard error: %s", &stderr)
	}
	if strings.Contains(text, "\x1b") {
		t.Error("it drew on what is not a terminal")
	}
	if t.Failed() {
		t.Logf("the roll-out:\n%s", text)
	}
}

func TestInterruptEndsARollOut(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout := &ctrlC{at: "The upstream gives", cancel: cancel}
	var stderr bytes.Buffer
	if status := give(ctx, t, options{}, stdout, &stderr, "--nodes", "3"); status != exitFailed || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("exit status %d, want %d; on standard error: %s", status, exitFailed, &stderr)
	}
}

func TestRollOutOfTooManyNodesIsAMistake(t *testing.T) {
	for _, n := range []int{-1, 1, maxNodes + 1} {
		var stderr bytes.Buffer
		status := run(t.Context(), []string{fmt.Sprintf("--nodes=%d", n)}, io.Discard, &stderr)
		if status != exitUsage || !strings.Contains(stderr.String(), "--nodes: from 2 to 12 nodes can be shown") {
			t.Errorf("%d nodes: exit status %d, want %d; on standard error: %s", n, status, exitUsage, &stderr)
		}
	}
}
