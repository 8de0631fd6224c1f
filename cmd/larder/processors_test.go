package main

import "testing"

func TestDaemonHasFourPlacesUnlessToldOtherwise(t *testing.T) {
	for name, test := range map[string]struct {
		env                       []string
		current, processors, want int
	}{
		"one processor":              {nil, 1, 1, 4},
		"two processors":             {[]string{"HOME=/", "NOT_GOMAXPROCS=2"}, 2, 2, 4},
		"four processors":            {nil, 4, 4, 4},
		"many processors":            {nil, 64, 64, 64},
		"set by the environment":     {[]string{"HOME=/", "GOMAXPROCS=2"}, 2, 2, 2},
		"set above the processors":   {[]string{"GOMAXPROCS=3"}, 3, 2, 3},
		"a quota below four":         {nil, 2, 4, 2},
		"a quota of many processors": {nil, 6, 64, 6},
	} {
		t.Run(name, func(t *testing.T) {
			if got := maxProcs(test.env, test.current, test.processors); got != test.want {
				t.Errorf("GOMAXPROCS is %d, want %d", got, test.want)
			}
		})
	}
}
