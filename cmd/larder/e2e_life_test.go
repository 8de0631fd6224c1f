package main

import (
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestSIGTERMLetsRunningBodiesFinish(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	const held = 1 << 20
	s.ecr.hold(t, held) // the body cannot end before mend
	want := s.ecr.largestBlob()
	p := s.newPuller(t)
	resp, err := p.get(t.Context(), imageRepository+"/blobs/"+want.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	verifier := want.Verifier()
	if _, err := io.CopyN(verifier, resp.Body, held/2); err != nil {
		t.Fatal(err)
	}

	if err := s.larder.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.larder.await(t, func(ctx context.Context) bool {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.listen)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	s.ecr.mend(t)
	if _, err := io.Copy(verifier, resp.Body); err != nil {
		t.Errorf("a body that ran when the process was told to end: %v", err)
	}
	if !verifier.Verified() {
		t.Error("a body that ran when the process was told to end has wrong bytes")
	}
	p.client.CloseIdleConnections()
	<-s.larder.exited
	if err := s.larder.err; err != nil {
		t.Errorf("larder ended with %v, want exit status 0", err)
	}
}

func TestSecondProcessNamesTheOwnerOfTheFolder(t *testing.T) {
	t.Parallel()
	s := newStack(t, "upstreams: [{host: registry.example}]\n")
	s.startLarder(t)
	second := start(t, s.larderCommand(t))
	<-second.exited
	if code := second.cmd.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("the second process ended with status %d, want %d", code, exitFailed)
	}
	holder := "is in use by process " + strconv.Itoa(s.larder.cmd.Process.Pid)
	if log := second.logged(); !strings.Contains(log, holder) {
		t.Errorf("the second process said %q, want %q in it", log, holder)
	}
}
