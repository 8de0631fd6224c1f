package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/larder-registry/larder/deploy/deploytest"
)

var (
	alertRules  = filepath.Join(repository, "deploy", "helm", "larder", "alerts", "larder.yaml")
	alertTests  = filepath.Join(repository, "deploy", "alerts_test", "larder.yaml")
	dashboard   = filepath.Join(repository, "deploy", "helm", "larder", "dashboards", "larder.json")
	metricNames = regexp.MustCompile(`\blarder_\w+`)
)

// A query is one of the dashboard or of an alert.
type query struct {
	what, expr string
	answers    bool // every Larder has data for it after a pull
}

// queries returns the queries of the dashboard and of the alerts, with values for Grafana's variables.
func queries(t *testing.T) []query {
	t.Helper()
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	decode(t, dashboard, json.Unmarshal, &board)
	decode(t, alertRules, yaml.Unmarshal, &rules)
	variables := strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$job", ".*", "$instance", ".*")
	var all []query
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			q := query{what: "panel " + panel.Title, expr: variables.Replace(target.Expr)}
			q.answers = !strings.Contains(q.expr, "larder_upstream_pulls_") && !strings.Contains(q.expr, "[45]..") && !strings.HasSuffix(q.expr, " > 0") &&
				!strings.Contains(q.expr, "larder_peer_") && !strings.Contains(q.expr, "larder_shared_") // there are none without peers and a bucket
			all = append(all, q)
		}
	}
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			all = append(all, query{what: "alert " + rule.Alert, expr: rule.Expr})
		}
	}
	if len(all) < 30 {
		t.Fatalf("only %d queries were found", len(all))
	}
	return all
}

func decode(t *testing.T, file string, unmarshal func([]byte, any) error, v any) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err == nil {
		err = unmarshal(raw, v)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func TestDashboardAndAlertsUseExistingMetrics(t *testing.T) {
	known := documentedMetrics(t) // TestMetricsAreThoseThatAreDocumented compares them with Larder's
	used := make(map[string]bool)
	for _, q := range queries(t) {
		for _, name := range metricNames.FindAllString(q.expr, -1) {
			for _, end := range []string{"_bucket", "_sum", "_count"} {
				if base, ok := strings.CutSuffix(name, end); ok && known[base].kind == "histogram" {
					name = base
				}
			}
			if _, ok := known[name]; !ok {
				t.Errorf("%s uses %s, which does not exist", q.what, name)
			}
			used[name] = true
		}
	}
	for name := range known {
		if !used[name] && name != "larder_keep_alive_touches_total" {
			t.Errorf("neither the dashboard nor an alert shows %s", name)
		}
	}
}

func TestAlertsSayWhatToDo(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert               string
				Labels, Annotations map[string]string
			}
		}
	}
	decode(t, alertRules, yaml.Unmarshal, &rules)
	runbook, err := os.ReadFile(filepath.Join(repository, "deploy", "OPERATIONS.md"))
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			for _, key := range []string{"summary", "description"} {
				if rule.Annotations[key] == "" {
					t.Errorf("%s has no %s", rule.Alert, key)
				}
			}
			if !slices.Contains([]string{"warning", "critical"}, rule.Labels["severity"]) {
				t.Errorf("%s has the severity %q", rule.Alert, rule.Labels["severity"])
			}
			if !strings.HasSuffix(rule.Annotations["runbook_url"], "/deploy/OPERATIONS.md#"+strings.ToLower(rule.Alert)) {
				t.Errorf("%s leads to %s", rule.Alert, rule.Annotations["runbook_url"])
			}
			if heading := regexp.MustCompile("(?m)^#+ " + rule.Alert + "$"); err == nil && !heading.Match(runbook) {
				t.Errorf("deploy/OPERATIONS.md has no heading %s, to which the alert leads", rule.Alert)
			}
		}
	}
}

func TestAlertsFireAsTheirTestsExpect(t *testing.T) {
	promtool := deploytest.Require(t, "promtool")
	for _, args := range [][]string{{"check", "rules", alertRules}, {"test", "rules", alertTests}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// A real Prometheus that scrapes Larder understands every query, and has data for those that are not about rare events.
func TestPrometheusAnswersEveryQuery(t *testing.T) {
	program := deploytest.Require(t, "prometheus")
	s, _ := serveInside(t, "policy: [{match: \"*/team/*\", mode: enforce, age: 1ns}]\n")
	s.pull(t, "team/app", s.addImage(t, "team/app", 100_000))
	p := startPrometheus(t, program, s.admin)
	p.awaitScrapes(t)
	for _, q := range queries(t) {
		n, err := p.ask(t.Context(), q.expr)
		switch {
		case err != nil:
			t.Errorf("%s: %v\n%s", q.what, err, q.expr)
		case n == 0 && q.answers:
			t.Errorf("%s has no data after a pull: %s", q.what, q.expr)
		case n > 0 && strings.HasPrefix(q.what, "alert "):
			t.Errorf("%s fires after a pull that went well", q.what)
		}
	}
	if state, err := p.alerts(t.Context()); err != nil || !slices.Contains(state, "LarderDown") {
		t.Errorf("Prometheus has loaded the alerts %v, %v", state, err)
	}
}

// prometheusPatience is how long Prometheus may take to start and to scrape, on a machine that is busy with other tests.
const prometheusPatience = 30 * time.Second

// prometheusServer is a Prometheus that runs until the test ends.
type prometheusServer struct {
	log    string // file
	client *http.Client
	base   string
}

// startPrometheus starts one that scrapes an address a few times per second.
func startPrometheus(t *testing.T, program, target string) *prometheusServer {
	t.Helper()
	rules, err := filepath.Abs(alertRules)
	if err != nil {
		t.Fatal(err)
	}
	config := writeConfig(t, fmt.Sprintf(`global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: larder
    static_configs: [{targets: [%q]}]
`, rules, target))
	dir := filepath.Dir(config)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	address := deploytest.FreeAddress(t)
	cmd := exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	cmd.Env, cmd.Stderr = []string{"HOME=" + dir}, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	transport := new(http.Transport)
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()         // it was killed
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return &prometheusServer{
		log:    log.Name(),
		client: &http.Client{Transport: transport, Timeout: 10 * time.Second},
		base:   "http://" + address,
	}
}

// awaitScrapes waits until there are enough scrapes for a rate.
func (p *prometheusServer) awaitScrapes(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), prometheusPatience)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		n, err := p.ask(ctx, `count_over_time(larder_cache_size_bytes[1m]) >= 3`)
		if err == nil && n > 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			log, _ := os.ReadFile(p.log) // best effort: the test fails anyway
			t.Fatalf("Prometheus has not scraped within %v: %v\n%s", prometheusPatience, err, log)
		}
	}
}

// ask returns how many series a query has at the moment.
func (p *prometheusServer) ask(ctx context.Context, expr string) (int, error) {
	var answer struct {
		Data struct{ Result []any }
	}
	err := p.get(ctx, "/api/v1/query?query="+url.QueryEscape(expr), &answer)
	return len(answer.Data.Result), err
}

// alerts returns the names of the alerts that were loaded.
func (p *prometheusServer) alerts(ctx context.Context) (names []string, err error) {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name string }
			}
		}
	}
	err = p.get(ctx, "/api/v1/rules", &answer)
	for _, group := range answer.Data.Groups {
		for _, rule := range group.Rules {
			names = append(names, rule.Name)
		}
	}
	return names, err
}

func (p *prometheusServer) get(ctx context.Context, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, raw)
	}
	return json.Unmarshal(raw, v)
}
