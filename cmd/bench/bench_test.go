package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/cmd/bench/internal/cases"
	"github.com/larder-registry/larder/cmd/bench/internal/process"
	"github.com/larder-registry/larder/cmd/bench/internal/report"
)

// TestMain makes this binary the bench when the bench under test starts itself again.
func TestMain(m *testing.M) {
	if os.Getenv(process.SelfEnv) != "" {
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

func TestEveryCaseCanBeMeasured(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	var got struct {
		Results []struct {
			Case, Server, Metric string
			Median               float64
		}
		Verdicts []struct{ Text string }
	}
	out := bench(t, "--quick", "--format", "json", "--dir", t.TempDir(), "--servers", "larder,direct")
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	measured := make(map[string]bool)
	for _, r := range got.Results {
		measured[r.Case] = measured[r.Case] || r.Server == report.Larder
		if math.IsNaN(r.Median) || r.Median < 0 {
			t.Errorf("%s, %s: %s is %v", r.Case, r.Server, r.Metric, r.Median)
		}
		// Larder fetches each byte once, however slow the machine is. Where it passes bytes through, a client that hangs up
		// leaves some on their way.
		if r.Case != "bypass-chunks-far" && r.Server == report.Larder && r.Metric == report.UpstreamBytes.String() && r.Median != 1 {
			t.Errorf("%s: the upstream sent %v times what was wanted", r.Case, r.Median)
		}
	}
	for _, c := range cases.All(1) {
		if !measured[c.Name] {
			t.Errorf("%s: nothing was measured", c.Name)
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
	// memory-warm verifies every byte that each server sends.
	out := bench(t, "--quick", "--cases", "memory-warm,cold-1", "--servers", servers, "--dir", dir)
	if !strings.Contains(out, "bytes upstream, ×") {
		t.Errorf("the table does not have the bytes that the upstream sent:\n%s", out)
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
