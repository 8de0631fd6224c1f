package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain makes this binary the bench, where the bench under test starts itself again.
func TestMain(m *testing.M) {
	if os.Getenv(asBench) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// bench runs a command line, and returns what it printed.
func bench(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr); status != exitDone {
		t.Fatalf("bench %s: status %d\n%s", strings.Join(args, " "), status, stderr.String())
	}
	return stdout.String()
}

// Every case is carried out, so that none rots.
func TestEveryCaseCanBeMeasured(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	var got struct {
		Results []struct {
			Case, Server, Metric string
			Median               float64
		}
		Verdicts []verdict
	}
	out := bench(t, "--quick", "--format", "json", "--dir", t.TempDir(), "--servers", "larder,direct")
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	measured := make(map[string]bool)
	for _, r := range got.Results {
		measured[r.Case] = measured[r.Case] || r.Server == ours
		if math.IsNaN(r.Median) || r.Median < 0 {
			t.Errorf("%s, %s: %s is %v", r.Case, r.Server, r.Metric, r.Median)
		}
		// Whoever coalesces fetches each byte once, however slow the machine is.
		if r.Server == ours && r.Metric == upstreamBytes.String() && r.Median != 1 {
			t.Errorf("%s: the upstream sent %v times what was wanted", r.Case, r.Median)
		}
	}
	for _, sc := range scenarios(1) {
		if len(sc.headline) == 0 {
			t.Errorf("%s: nothing of it is shown", sc.name)
		}
		if !measured[sc.name] {
			t.Errorf("%s: nothing was measured", sc.name)
		}
	}
	if len(got.Verdicts) == 0 {
		t.Error("there are no verdicts")
	}
}

func TestPeersServeWhatLarderServes(t *testing.T) {
	servers := "larder,direct,bare-go"
	if _, err := exec.LookPath("nginx"); err == nil {
		servers += ",nginx,nginx-files"
	}
	dir := t.TempDir()
	// To warm them is to check every byte that they send.
	out := bench(t, "--quick", "--cases", "memory-warm,cold-1", "--servers", servers, "--dir", dir)
	if !strings.Contains(out, "bytes upstream, ×") {
		t.Errorf("the table lacks what the upstream sent:\n%s", out)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("%s was left behind", left[0].Name())
	}
}

func TestUsageMistakes(t *testing.T) {
	for _, test := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--cases", "hot-*"}, exitFailed, `no case is called "hot-*"`},
		{[]string{"--servers", "harbor"}, exitFailed, `"harbor": no such server`},
		{[]string{"--format", "xml"}, exitUsage, `must be one of "text","markdown","json"`},
	} {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), test.args, strings.NewReader(""), &stdout, &stderr)
		if status != test.status || !strings.Contains(stderr.String(), test.says) {
			t.Errorf("%q: status %d, %s; want status %d, %s", test.args, status, stderr.String(), test.status, test.says)
		}
	}
}

// filled is a report with one round.
func filled(values map[string]measures) *report {
	r := &report{servers: sortedKeys(values)}
	sc := &scenario{name: "case", about: "what it is", headline: []metric{wall}}
	for _, server := range r.servers {
		r.add(sc, server, values[server])
	}
	return r
}

func TestVerdicts(t *testing.T) {
	r := filled(map[string]measures{
		ours:     {wall: 2, rate: 100, peakMemory: 80, p99: 9, p99Alone: 4, firstByte: 5},
		"nginx":  {wall: 4, rate: 120},
		"direct": {firstByte: 1.5},
	})
	for _, test := range []struct {
		target target
		met    bool
		text   string
	}{
		{target{metric: wall, than: "nginx", other: wall, bound: 0.5}, true,
			"case: wall, s 2.00, nginx's 4.00: 0.50 ×; must be ≤ 0.5 ×"},
		{target{metric: wall, than: "nginx", other: wall, bound: 0.4}, false,
			"case: wall, s 2.00, nginx's 4.00: 0.50 ×; must be ≤ 0.4 ×"},
		{target{metric: rate, than: "nginx", other: rate, bound: 0.7, atLeast: true}, true,
			"case: requests/s 100, nginx's 120: 0.83 ×; must be ≥ 0.7 ×"},
		{target{metric: peakMemory, bound: 100}, true,
			"case: peak memory, MB 80; must be ≤ 100"},
		{target{metric: p99, than: ours, other: p99Alone, bound: 2}, false,
			"case: p99, ms 9.0, p99 without it, ms 4.0: 2.25 ×; must be ≤ 2 ×"},
		{target{metric: firstByte, than: "direct", other: firstByte, minus: true, bound: 3}, false,
			"case: first byte, ms 5.0, direct's 1.5: 3.5 more; must be ≤ 3"},
	} {
		test.target.scenario = "case"
		got, ok := test.target.judge(r)
		if !ok || got.Met != test.met || got.Text != test.text {
			t.Errorf("got %v %v %q, want %v %q", ok, got.Met, got.Text, test.met, test.text)
		}
	}
	if v, ok := (target{scenario: "case", metric: wall, than: "distribution", other: wall}).judge(r); ok {
		t.Errorf("a verdict on who was not measured: %v", v)
	}
}

func TestTableHasEveryServerAndRound(t *testing.T) {
	r := filled(map[string]measures{ours: {wall: 1}, "nginx": {wall: 2}})
	r.add(r.cases[0].scenario, ours, measures{wall: 3})
	r.add(r.cases[0].scenario, ours, measures{wall: 1.5})
	r.missing = map[string]string{"distribution": "not installed"}
	for format, write := range map[string]func(*report, *bytes.Buffer) error{
		"| **case**: what it is | wall, s | 1.50 ±1.00 | 2.00 |": func(r *report, w *bytes.Buffer) error { return r.writeMarkdown(w) },
		"  wall, s  1.50 ±1.00  2.00\n":                          func(r *report, w *bytes.Buffer) error { return r.writeText(w) },
	} {
		var out bytes.Buffer
		if err := write(r, &out); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{format, "Missing: distribution (not installed)"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("there is no %q in\n%s", want, out.String())
			}
		}
	}
}

func TestPercentiles(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i)*time.Millisecond)
	}
	for p, want := range map[float64]float64{50: 50, 99: 99, 100: 100} {
		if got := percentile(hundred, p); got != want {
			t.Errorf("the %v-th percentile is %v, want %v", p, got, want)
		}
	}
	if got := (samples{4, 1, 3, 2}).median(); got != 2.5 {
		t.Errorf("the median is %v, want 2.5", got)
	}
}

func TestSummaryOfSystemCallsIsRead(t *testing.T) {
	for text, want := range map[string]string{
		"100.00    0.001234           1      1234        56 total": "1234",
		"100.00    0.001234                  1234           total": "1234",
	} {
		found := straceTotal.FindStringSubmatch(text)
		if found == nil || found[1] != want {
			t.Errorf("%q: %v, want %s", text, found, want)
		}
	}
}
