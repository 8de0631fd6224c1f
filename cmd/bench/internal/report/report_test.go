package report_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/cmd/bench/internal/report"
)

// written returns what Write prints.
func written(t *testing.T, r *report.Report, format string) string {
	t.Helper()
	var out bytes.Buffer
	if err := report.Write(&out, r, format); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestVerdictsCompareMedians(t *testing.T) {
	for name, test := range map[string]struct {
		on       string
		measures map[string]report.Measures
		want     string
	}{
		"ratio that is met": {"cold-1-400", map[string]report.Measures{"larder": {report.Wall: 2}, "direct": {report.Wall: 8}},
			"met     cold-1-400: wall, s 2.00, direct's 8.00: 0.25 ×; must be ≤ 0.4 ×"},
		"ratio that is missed": {"cold-1-400", map[string]report.Measures{"larder": {report.Wall: 2}, "direct": {report.Wall: 4}},
			"MISSED  cold-1-400: wall, s 2.00, direct's 4.00: 0.50 ×; must be ≤ 0.4 ×"},
		"lower bound": {"manifest", map[string]report.Measures{"larder": {report.Rate: 100}, "nginx-files": {report.Rate: 120}},
			"met     manifest: requests/s 100, nginx-files's 120: 0.83 ×; must be ≥ 0.7 ×"},
		"measure alone": {"memory-cold", map[string]report.Measures{"larder": {report.PeakMemory: 80}},
			"met     memory-cold: peak memory, MB 80; must be ≤ 100"},
		"two measures of Larder": {"beside-fill", map[string]report.Measures{"larder": {report.P99: 9, report.P99Alone: 4}},
			"MISSED  beside-fill: p99, ms 9.0, p99 without it, ms 4.0: 2.25 ×; must be ≤ 2 ×"},
		"difference": {"first-byte", map[string]report.Measures{"larder": {report.FirstByte: 5}, "direct": {report.FirstByte: 1.5}},
			"MISSED  first-byte: first byte, ms 5.0, direct's 1.5: 3.5 more; must be ≤ 3"},
	} {
		t.Run(name, func(t *testing.T) {
			var r report.Report
			for server, measures := range test.measures {
				r.Add(report.Case{Name: test.on}, server, measures)
			}
			if out := written(t, &r, "text"); !strings.HasSuffix(out, "\n\n"+test.want+"\n") {
				t.Errorf("the verdict is not %q:\n%s", test.want, out)
			}
		})
	}
}

func TestNoVerdictWithoutTheOtherServer(t *testing.T) {
	var r report.Report
	r.Add(report.Case{Name: "cold-1-400"}, "larder", report.Measures{report.Wall: 1})
	if out := written(t, &r, "text"); strings.Contains(out, "must be") {
		t.Errorf("a verdict without a measure of the other server:\n%s", out)
	}
}

// threeRounds is a report with a case in which Larder had three turns and nginx one.
func threeRounds() *report.Report {
	r := &report.Report{
		Command: "go run ./cmd/bench --quick",
		Servers: []string{"larder", "nginx"},
		Missing: map[string]string{"distribution": "not installed"},
	}
	c := report.Case{
		Name:     "case",
		About:    "what it is",
		Headline: []report.Metric{report.Wall},
		Skip:     map[string]string{"direct": "it is no cache"},
	}
	for _, wall := range []float64{1, 3, 1.5} {
		r.Add(c, "larder", report.Measures{report.Wall: wall, report.PeakMemory: 70})
	}
	r.Add(c, "nginx", report.Measures{report.Wall: 2})
	return r
}

func TestTableHasEveryServerAndRound(t *testing.T) {
	for format, rows := range map[string][]string{
		"text":     {"  wall, s          1.50 ±1.00  2.00\n", "  peak memory, MB  70 ±0       \n"},
		"markdown": {"| **case**: what it is | wall, s | 1.50 ±1.00 | 2.00 |\n"},
	} {
		out := written(t, threeRounds(), format)
		for _, want := range append(rows, "go run ./cmd/bench --quick", "Missing: distribution (not installed)", "case: without direct: it is no cache.") {
			if !strings.Contains(out, want) {
				t.Errorf("%s: there is no %q in\n%s", format, want, out)
			}
		}
	}
}

func TestMarkdownHasHeadlinesOnly(t *testing.T) {
	if out := written(t, threeRounds(), "markdown"); strings.Contains(out, "peak memory") {
		t.Errorf("a metric that is not in the headline:\n%s", out)
	}
}

func TestJSONHasEverySample(t *testing.T) {
	var got struct {
		Results []struct {
			Case, Server, Metric string
			Median               float64
			Samples              []float64
		}
	}
	out := written(t, threeRounds(), "json")
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if len(got.Results) != 3 {
		t.Fatalf("%d results, want 3:\n%s", len(got.Results), out)
	}
	first := got.Results[0]
	if first.Case != "case" || first.Server != "larder" || first.Metric != "wall, s" || first.Median != 1.5 ||
		!slices.Equal(first.Samples, []float64{1, 3, 1.5}) {
		t.Errorf("the first result is %+v", first)
	}
}

func TestMedianOfAnEvenNumberIsBetweenTheMiddleTwo(t *testing.T) {
	r := &report.Report{Servers: []string{"larder"}}
	for _, wall := range []float64{4, 1, 3, 2} {
		r.Add(report.Case{Name: "case"}, "larder", report.Measures{report.Wall: wall})
	}
	if out := written(t, r, "text"); !strings.Contains(out, "wall, s  2.50 ±1.50\n") {
		t.Errorf("the median of 1, 2, 3 and 4 is not 2.5:\n%s", out)
	}
}

func TestPercentiles(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i)*time.Millisecond)
	}
	for p, want := range map[float64]float64{50: 50, 99: 99, 100: 100} {
		if got := report.Percentile(hundred, p); got != want {
			t.Errorf("the %v-th percentile is %v, want %v", p, got, want)
		}
	}
}
