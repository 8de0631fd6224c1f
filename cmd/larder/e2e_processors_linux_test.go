package main

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDaemonOnOneProcessorHasFourPlaces(t *testing.T) {
	t.Parallel()
	s := newStack(t, "")
	onOneProcessor(t, func() { s.startLarder(t) })
	const want = "\ngo_sched_gomaxprocs_threads 4\n"
	if metrics := s.tells(t.Context(), t, "/metrics"); !strings.Contains(metrics, want) {
		t.Errorf("/metrics does not say %q", strings.TrimSpace(want))
	}
}

// onOneProcessor calls start, whose processes can use only one of this machine's processors.
func onOneProcessor(t *testing.T, start func()) {
	t.Helper()
	// A process inherits the processors of the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.SchedSetaffinity(0, &all); err != nil {
			t.Error(err)
		}
	}()
	start()
}
