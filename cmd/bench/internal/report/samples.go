package report

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// samples are the values of one metric, one from each round.
type samples []float64

func (s samples) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// spread is half the distance between the extremes.
func (s samples) spread() float64 { return (slices.Max(s) - slices.Min(s)) / 2 }

// text is the median and, with more than one round, the spread.
func (s samples) text(m Metric) string {
	text := fmt.Sprintf("%.*f", m.decimals(), s.median())
	if len(s) > 1 {
		text += fmt.Sprintf(" ±%.*f", m.decimals(), s.spread())
	}
	return text
}

// Percentile returns the p-th percentile of durations, in milliseconds.
func Percentile(durations []time.Duration, p float64) float64 {
	if len(durations) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(durations))
	i := int(math.Ceil(p/100*float64(len(sorted)))) - 1
	return float64(sorted[max(i, 0)]) / float64(time.Millisecond)
}
