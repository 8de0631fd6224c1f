package main

import (
	"fmt"
	"math"
)

// A target is what Larder must show in a case: a measure of its own, as a ratio to another's, or to a measure of its own,
// or by itself.
type target struct {
	scenario string
	metric   metric
	than     string // whose measure it is compared with; none if empty
	other    metric // which of theirs
	minus    bool   // the difference counts, not the ratio
	bound    float64
	atLeast  bool // the bound is from below
}

// targets is the table that the project has set itself.
func targets() []target {
	atMost := func(scenario string, m metric, than string, bound float64) target {
		return target{scenario: scenario, metric: m, than: than, other: m, bound: bound}
	}
	often := func(scenario, than string, bound float64) target {
		return target{scenario: scenario, metric: rate, than: than, other: rate, bound: bound, atLeast: true}
	}
	return []target{
		atMost("warm", cpuPerGB, "nginx", 1.15),
		atMost("warm", cpuPerGB, "distribution", 0.45),
		often("manifest", "nginx-files", 0.7),
		often("manifest", "distribution", 5),
		often("blob", "nginx", 0.6),
		often("blob", "distribution", 15),
		atMost("cold-1", wall, "direct", 1.25),
		{scenario: "first-byte", metric: firstByte, than: "direct", other: firstByte, minus: true, bound: 3},
		atMost("cold-1", cpuPerGB, "nginx", 1),
		atMost("cold-1-400", wall, "direct", 0.4),
		atMost("cold-8-400", upstreamBytes, "", 1),
		atMost("cold-8-400", wall, "nginx", 0.45),
		atMost("cold-64-400", upstreamBytes, "", 1),
		atMost("cold-64-400", wall, "nginx", 0.45),
		atMost("ranges", p99, "direct", 3),
		{scenario: "beside-fill", metric: p99, than: ours, other: p99Alone, bound: 2},
		atMost("memory-cold", peakMemory, "", 100),
		atMost("memory-warm", peakMemory, "", 100),
	}
}

// ours is the contender that the targets are about.
const ours = "larder"

// verdict is how a target came out.
type verdict struct {
	Scenario string  `json:"case"`
	Text     string  `json:"text"`
	Value    float64 `json:"value"`
	Bound    float64 `json:"bound"`
	Met      bool    `json:"met"`
}

// judge compares what was measured with a target. It reports false where something for it was not measured.
func (t target) judge(r *report) (verdict, bool) {
	found := r.find(t.scenario)
	if found == nil || len(found.results[ours][t.metric]) == 0 {
		return verdict{}, false
	}
	value, what := found.results[ours][t.metric].median(), t.metric.String()
	decimals := metrics[t.metric].decimals
	got := fmt.Sprintf("%.*f", decimals, value)
	unit := ""
	if t.than != "" {
		theirs := found.results[t.than][t.other]
		if len(theirs) == 0 {
			return verdict{}, false
		}
		against := fmt.Sprintf("%.*f", decimals, theirs.median())
		switch {
		case t.minus:
			value -= theirs.median()
			got = fmt.Sprintf("%s, %s's %s: %.*f more", got, t.than, against, decimals, value)
		case t.than == ours:
			value /= theirs.median()
			got, unit = fmt.Sprintf("%s, %s %s: %.2f ×", got, t.other, against, value), " ×"
		default:
			value /= theirs.median()
			got, unit = fmt.Sprintf("%s, %s's %s: %.2f ×", got, t.than, against, value), " ×"
		}
	}
	value = math.Round(value*100) / 100 // as it is printed
	met, must := value <= t.bound, "≤"
	if t.atLeast {
		met, must = value >= t.bound, "≥"
	}
	text := fmt.Sprintf("%s: %s %s; must be %s %g%s", t.scenario, what, got, must, t.bound, unit)
	return verdict{t.scenario, text, value, t.bound, met}, true
}
