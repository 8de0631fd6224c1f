package report

import (
	"fmt"
	"math"
)

// Larder is the server that the targets are about.
const Larder = "larder"

// A target is what Larder must show in a case: a measure alone, or compared with a measure of another server or with
// another measure of its own.
type target struct {
	name       string // of the case
	metric     Metric
	than       string // the server to compare with; none if empty
	other      Metric // its measure
	difference bool   // compares by difference, not by ratio
	bound      float64
	atLeast    bool // the bound is a lower one
}

// targets are those that the project has set itself.
func targets() []target {
	atMost := func(name string, m Metric, than string, bound float64) target {
		return target{name: name, metric: m, than: than, other: m, bound: bound}
	}
	rateAtLeast := func(name, than string, bound float64) target {
		return target{name: name, metric: Rate, than: than, other: Rate, bound: bound, atLeast: true}
	}
	return []target{
		atMost("warm", CPUPerGB, "nginx", 1.15),
		atMost("warm", CPUPerGB, "distribution", 0.45),
		rateAtLeast("manifest", "nginx-files", 0.7),
		rateAtLeast("manifest", "distribution", 5),
		rateAtLeast("blob", "nginx", 0.6),
		rateAtLeast("blob", "distribution", 15),
		atMost("cold-1", Wall, "direct", 1.25),
		{name: "first-byte", metric: FirstByte, than: "direct", other: FirstByte, difference: true, bound: 3},
		atMost("cold-1", CPUPerGB, "nginx", 1),
		atMost("cold-1-400", Wall, "direct", 0.4),
		atMost("cold-8-400", UpstreamBytes, "", 1),
		atMost("cold-8-400", Wall, "nginx", 0.45),
		atMost("cold-64-400", UpstreamBytes, "", 1),
		atMost("cold-64-400", Wall, "nginx", 0.45),
		atMost("ranges", P99, "direct", 3),
		atMost("readers-far", Wall, "direct", 1.1),
		atMost("readers-far", UpstreamRequests, "direct", 2),
		atMost("soci-far", Wall, "direct", 1.1),
		atMost("soci-far", UpstreamRequests, "direct", 2),
		atMost("chunks-far", Wall, "direct", 1.1),
		atMost("chunks-far", UpstreamRequests, "direct", 2),
		atMost("readers-tls", Wall, "direct", 1.1),
		atMost("soci-tls", Wall, "direct", 1.1),
		atMost("chunks-tls", Wall, "direct", 1.1),
		atMost("bypass-far", Wall, "direct", 1.2),
		atMost("bypass-far", UpstreamBytes, "", 1.05),
		atMost("bypass-chunks-far", Wall, "direct", 1.2),
		atMost("bypass-chunks-far", UpstreamBytes, "", 1.05),
		atMost("bypass-tls", Wall, "direct", 1.2),
		rateAtLeast("manifest", "bare-go", 0.75),
		rateAtLeast("blob", "bare-go", 1),
		{name: "beside-fill", metric: P99, than: Larder, other: P99Alone, bound: 2},
		atMost("memory-cold", PeakMemory, "", 100),
		atMost("memory-warm", PeakMemory, "", 100),
	}
}

// verdict says whether a target was met.
type verdict struct {
	Case  string  `json:"case"`
	Text  string  `json:"text"`
	Value float64 `json:"value"`
	Bound float64 `json:"bound"`
	Met   bool    `json:"met"`
}

// verdicts judges each target for which everything was measured.
func verdicts(r *Report) []verdict {
	var all []verdict
	for _, t := range targets() {
		if v, ok := t.judge(r); ok {
			all = append(all, v)
		}
	}
	return all
}

// judge compares the medians with a target. It reports false where one of them was not measured.
func (t target) judge(r *Report) (verdict, bool) {
	ours := r.of(t.name, Larder, t.metric)
	if len(ours) == 0 {
		return verdict{}, false
	}
	value, decimals := ours.median(), t.metric.decimals()
	got, unit := fmt.Sprintf("%.*f", decimals, value), ""
	if t.than != "" {
		theirs := r.of(t.name, t.than, t.other)
		if len(theirs) == 0 {
			return verdict{}, false
		}
		against := fmt.Sprintf("%.*f", decimals, theirs.median())
		switch {
		case t.difference:
			value -= theirs.median()
			got = fmt.Sprintf("%s, %s's %s: %.*f more", got, t.than, against, decimals, value)
		case t.than == Larder:
			value /= theirs.median()
			got, unit = fmt.Sprintf("%s, %s %s: %.2f ×", got, t.other, against, value), " ×"
		default:
			value /= theirs.median()
			got, unit = fmt.Sprintf("%s, %s's %s: %.2f ×", got, t.than, against, value), " ×"
		}
	}
	value = math.Round(value*100) / 100 // the value that is printed
	met, must := value <= t.bound, "≤"
	if t.atLeast {
		met, must = value >= t.bound, "≥"
	}
	text := fmt.Sprintf("%s: %s %s; must be %s %g%s", t.name, t.metric, got, must, t.bound, unit)
	return verdict{t.name, text, value, t.bound, met}, true
}

func (v verdict) word() string {
	if v.Met {
		return "met"
	}
	return "MISSED"
}
