package main

import (
	"runtime"
	"slices"
	"strings"
)

// fewest is how many goroutines may run Go code at once at least. One that writes
// or syncs a file keeps its place until the runtime takes it away, some
// milliseconds later: of two places, as many as a small node has processors, that
// is half, and hits wait meanwhile.
//
// On two processors, against 2: a warm manifest 39,800 times a second rather than
// 35,800, a warm blob of 4 KiB 34,000 rather than 31,800.
const fewest = 4

// useProcessors sets GOMAXPROCS, unless the environment does, or a quota of the
// container's: more than that would be used up early in each period.
func useProcessors(env []string) {
	said := slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "GOMAXPROCS=") })
	limited := runtime.GOMAXPROCS(0) < runtime.NumCPU()
	if !said && !limited && runtime.GOMAXPROCS(0) < fewest {
		runtime.GOMAXPROCS(fewest)
	}
}
