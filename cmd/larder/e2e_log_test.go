package main

import (
	"io"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestLogThatNobodyReadsStopsNothing gives Larder a pipe as its standard error.
func TestLogThatNobodyReadsStopsNothing(t *testing.T) {
	t.Parallel()
	for _, closed := range []bool{false, true} {
		t.Run(map[bool]string{false: "a full pipe", true: "a closed pipe"}[closed], func(t *testing.T) {
			s := newStack(t, "")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			s.larder = startWith(t, s.larderCommand(t), w)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if closed {
				r.Close()
			}
			s.awaitReady(t)
			client := &http.Client{Transport: transport(t), Timeout: 20 * time.Second}
			for range 2000 { // each has a line of the log; a pipe has 64 KiB
				resp, err := client.Get("http://" + s.listen + "/v2/")
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if err := s.larder.stop(syscall.SIGTERM); err != nil {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}
