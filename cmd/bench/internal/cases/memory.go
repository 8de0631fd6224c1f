package cases

import (
	"github.com/larder-registry/larder/cmd/bench/internal/lab"
	"github.com/larder-registry/larder/cmd/bench/internal/report"
)

// memoryCold is many clients of a large image that no server stores.
func memoryCold() *lab.Case {
	c := cold("memory-cold", "64 clients pull a cold image of 1 GiB at once, upstream at full speed", 64, fullSpeed,
		[]int64{512 * mib, 256 * mib, 128 * mib, 64 * mib, 32 * mib, 32 * mib})
	c.MaxRounds = 1
	c.Headline = []report.Metric{report.Wall, report.CPUPerGB, report.PeakMemory}
	c.Skip["distribution"] = "it would fetch the image 64 times"
	c.Skip["direct"] = noMemory
	return c
}

const noMemory = "it has no memory of its own"

// memoryWarm is very many clients of an image that every server stores.
func memoryWarm() *lab.Case {
	return &lab.Case{
		Case: report.Case{
			Name:     "memory-warm",
			About:    "256 clients pull a warm image of 28 MB at once",
			Headline: []report.Metric{report.Wall, report.CPUPerGB, report.PeakMemory},
			Skip:     map[string]string{"direct": noMemory},
		},
		MaxRounds: 1,
		Prepare:   warmPulls(smaller(large, 16), 256, 1),
	}
}
