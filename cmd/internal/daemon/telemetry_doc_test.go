package daemon

import (
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

// documented is a row of deploy/METRICS.md.
type documented struct {
	name, kind string
	labels     []string
	often      bool // every Larder has it after a pull
}

var (
	metricRow = regexp.MustCompile("(?m)^\\| `(larder_\\w+)` \\| (\\w+) \\| ([^|]*)\\| (.*) \\|$")
	quoted    = regexp.MustCompile("`(\\w+)`")
)

func documentedMetrics(t *testing.T) map[string]documented {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(repository, "deploy", "METRICS.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]documented)
	for _, row := range metricRow.FindAllStringSubmatch(string(raw), -1) {
		d := documented{name: row[1], kind: row[2], often: !strings.HasPrefix(row[4], "only ")}
		for _, label := range quoted.FindAllStringSubmatch(row[3], -1) {
			d.labels = append(d.labels, label[1])
		}
		all[d.name] = d
	}
	return all
}

// labelsOf are the names of all labels that a metric has.
func labelsOf(family *dto.MetricFamily) []string {
	names := make(map[string]bool)
	for _, m := range family.GetMetric() {
		for _, label := range m.GetLabel() {
			names[label.GetName()] = true
		}
	}
	var all []string
	for name := range names {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func TestMetricsAreThoseThatAreDocumented(t *testing.T) {
	s, _ := serveInside(t, "policy: [{match: \"*/*\", mode: warn, age: 1h}]\n")
	image := s.addImage(t, "team/app", 100_000)
	s.pull(t, "team/app", image)
	s.pull(t, "team/app", image)
	exposed, docs := s.metrics(t), documentedMetrics(t)
	if len(docs) < 20 {
		t.Fatalf("only %d metrics are documented", len(docs))
	}
	for name, d := range docs {
		family := exposed[name]
		if family == nil {
			if d.often {
				t.Errorf("%s is documented, and missing after a pull", name)
			}
			continue
		}
		if kind := strings.ToLower(family.GetType().String()); kind != d.kind {
			t.Errorf("%s is a %s, documented as a %s", name, kind, d.kind)
		}
		want := slices.Sorted(slices.Values(d.labels))
		if got := labelsOf(family); !slices.Equal(got, want) {
			t.Errorf("%s has the labels %v, documented are %v", name, got, want)
		}
		if family.GetHelp() == "" {
			t.Errorf("%s does not say what it is", name)
		}
	}
	for name := range exposed {
		if _, ok := docs[name]; strings.HasPrefix(name, "larder_") && !ok {
			t.Errorf("%s is not documented", name)
		}
	}
}

// value is the sum of a metric, over all labels or over those that are given.
func value(families map[string]*dto.MetricFamily, name string, labels ...string) (sum float64) {
	for _, m := range families[name].GetMetric() {
		matches := true
		for i := 0; i < len(labels); i += 2 {
			matches = matches && slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
				return l.GetName() == labels[i] && l.GetValue() == labels[i+1]
			})
		}
		if matches {
			sum += cmp.Or(m.GetCounter().GetValue(), m.GetGauge().GetValue(), float64(m.GetHistogram().GetSampleCount()))
		}
	}
	return sum
}

func TestMetricsCountAPull(t *testing.T) {
	s, _ := serveInside(t, "telemetry: {repository_label: true}\n")
	image := s.addImage(t, "team/app", 100_000)
	s.pull(t, "team/app", image)
	s.pull(t, "team/app", image)
	got := s.metrics(t)
	var blobs float64
	for _, blob := range image.Blobs {
		blobs += float64(blob.Size)
	}
	n, host := float64(len(image.Blobs)), s.ecr.Host()
	for _, test := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"larder_requests_total", []string{"route", "blob", "cache", "MISS", "status", "200", "repository", "team/app"}, n},
		{"larder_requests_total", []string{"route", "blob", "cache", "HIT", "status", "200", "upstream", host}, n},
		{"larder_requests_total", []string{"route", "manifest", "cache", "HIT"}, 1},
		{"larder_response_bytes_total", []string{"route", "blob", "cache", "MISS", "repository", "team/app"}, blobs},
		{"larder_response_bytes_total", []string{"route", "blob", "cache", "HIT"}, blobs},
		{"larder_request_first_byte_seconds", nil, 2 * (n + 1)},
		{"larder_fills_total", []string{"result", "ok"}, n},
		{"larder_fill_duration_seconds", []string{"result", "ok"}, n},
		{"larder_fill_bytes_total", nil, blobs},
		{"larder_tag_revalidations_total", []string{"result", "new"}, 1},
		{"larder_upstream_requests_total", []string{"target", "storage", "upstream", host}, n},
		{"larder_upstream_requests_total", []string{"target", "api", "status", "200"}, 1},
		{"larder_upstream_bytes_total", []string{"target", "storage"}, blobs},
		{"larder_upstream_token_renewals_total", []string{"result", "ok", "region", "us-east-1"}, 1},
		{"larder_cache_limit_bytes", nil, 50 << 30},
		{"larder_cache_blobs", nil, n + 1},
	} {
		if sum := value(got, test.name, test.labels...); sum != test.want {
			t.Errorf("%s%v is %v, want %v", test.name, test.labels, sum, test.want)
		}
	}
	if left := value(got, "larder_upstream_token_remaining_seconds"); left < 11*3600 || left > 13*3600 {
		t.Errorf("a new token is good for %v s, want about 12 hours", left)
	}
}
