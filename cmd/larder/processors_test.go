package main

import (
	"runtime"
	"testing"
)

func TestDaemonHasFourPlacesUnlessToldOtherwise(t *testing.T) {
	procs := runtime.NumCPU()
	if procs == 1 {
		t.Skip("of one processor a quota leaves none")
	}
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	for name, test := range map[string]struct {
		before, want int
		env          []string
	}{
		"by default":         {procs, max(procs, fewest), []string{"HOME=/", "NOT_GOMAXPROCS=1"}},
		"by the environment": {procs, procs, []string{"GOMAXPROCS=2"}},
		"with a quota":       {procs - 1, procs - 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			runtime.GOMAXPROCS(test.before)
			useProcessors(test.env)
			if got := runtime.GOMAXPROCS(0); got != test.want {
				t.Errorf("%d places, want %d", got, test.want)
			}
		})
	}
}
