package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// metric is something that is measured. Their order is that of the table.
type metric int

const (
	wall          metric = iota // seconds
	rate                        // requests a second
	firstByte                   // milliseconds
	median                      // milliseconds
	p99                         // milliseconds
	worst                       // milliseconds
	p99Alone                    // milliseconds; without what p99 is measured beside
	cpuPerGB                    // the server's CPU seconds a GB that it served
	cpuPerRequest               // the server's CPU microseconds
	allocs                      // a request
	syscalls                    // a request
	upstreamBytes               // as a multiple of what was wanted
	upstreamAsked               // requests
	peakMemory                  // MB, since the server began
	metricsCount  = iota
)

// metrics says how each is called and how many decimals it is worth.
var metrics = [metricsCount]struct {
	name     string
	decimals int
}{
	wall:          {"wall, s", 2},
	rate:          {"requests/s", 0},
	firstByte:     {"first byte, ms", 1},
	median:        {"median, ms", 1},
	p99:           {"p99, ms", 1},
	worst:         {"worst, ms", 0},
	p99Alone:      {"p99 without it, ms", 1},
	cpuPerGB:      {"server CPU, s/GB", 2},
	cpuPerRequest: {"server CPU, µs a request", 0},
	allocs:        {"allocations a request", 1},
	syscalls:      {"system calls a request", 1},
	upstreamBytes: {"bytes upstream, ×", 2},
	upstreamAsked: {"requests upstream", 0},
	peakMemory:    {"peak memory, MB", 0},
}

func everyMetric() []metric {
	all := make([]metric, metricsCount)
	for i := range all {
		all[i] = metric(i)
	}
	return all
}

func (m metric) String() string { return metrics[m].name }

// measures is what one turn of one server gave.
type measures map[metric]float64

// samples is what the rounds gave of one metric.
type samples []float64

func (s samples) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// spread is half the distance of the extremes.
func (s samples) spread() float64 { return (slices.Max(s) - slices.Min(s)) / 2 }

// text is the median and, with more than one round, the spread.
func (s samples) text(m metric) string {
	decimals := metrics[m].decimals
	text := fmt.Sprintf("%.*f", decimals, s.median())
	if len(s) > 1 {
		text += fmt.Sprintf(" ±%.*f", decimals, s.spread())
	}
	return text
}

// percentile returns the p-th of durations, in milliseconds.
func percentile(durations []time.Duration, p float64) float64 {
	if len(durations) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(durations))
	i := int(math.Ceil(p/100*float64(len(sorted)))) - 1
	return milliseconds(sorted[max(i, 0)])
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
