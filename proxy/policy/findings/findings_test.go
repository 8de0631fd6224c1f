package findings_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/proxy/policy/findings"
)

// fixed is a scan that does not change.
type fixed struct {
	scan findings.Scan
	err  error
}

// Scan is for findings.Scans.
func (f fixed) Scan(context.Context, policy.Image) (findings.Scan, error) { return f.scan, f.err }

var (
	image = policy.Image{Host: "123456789012.dkr.ecr.us-east-1.amazonaws.com", Repository: "team/app", Digest: digest.FromString("image")}
	now   = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
)

func evaluate(t *testing.T, opts findings.Options, scan findings.Scan) (policy.Answer, error) {
	t.Helper()
	opts.Scans, opts.Now = fixed{scan: scan}, func() time.Time { return now }
	return findings.New(opts).Evaluate(t.Context(), image)
}

func TestWorstAllowedSeverityDecides(t *testing.T) {
	one := func(severity, fix, status string) findings.Finding { return findings.Finding{severity, fix, status, 1} }
	type options = findings.Options
	for name, test := range map[string]struct {
		opts  options
		found []findings.Finding
		holds bool
		want  string
	}{
		"no findings":                              {options{}, nil, true, "no finding is worse than none"},
		"one, none allowed":                        {options{}, []findings.Finding{one("INFORMATIONAL", "NO", "ACTIVE")}, false, "1 informational, worse than none"},
		"as bad as allowed":                        {options{Worst: findings.High}, []findings.Finding{one("HIGH", "YES", "ACTIVE"), one("LOW", "YES", "ACTIVE")}, true, "worse than high"},
		"worse than allowed":                       {options{Worst: findings.High}, []findings.Finding{one("LOW", "YES", ""), {"CRITICAL", "YES", "ACTIVE", 3}}, false, "3 critical, worse than high"},
		"several severities":                       {options{Worst: findings.Low}, []findings.Finding{one("MEDIUM", "", ""), {"CRITICAL", "YES", "", 2}, {"CRITICAL", "NO", "", 2}, one("HIGH", "", "")}, false, "4 critical, 1 high, 1 medium"},
		"anything allowed":                         {options{Worst: findings.Critical}, []findings.Finding{one("CRITICAL", "YES", "")}, true, "worse than critical"},
		"without a fix, only fixable":              {options{Worst: findings.High, OnlyFixable: true}, []findings.Finding{one("CRITICAL", "NO", "ACTIVE")}, true, ""},
		"without a fix, any":                       {options{Worst: findings.High}, []findings.Finding{one("CRITICAL", "NO", "ACTIVE")}, false, "1 critical"},
		"a fix, only fixable":                      {options{Worst: findings.High, OnlyFixable: true}, []findings.Finding{one("CRITICAL", "YES", "ACTIVE")}, false, "can be fixed: 1 critical"},
		"a fix of a part, only fixable":            {options{Worst: findings.High, OnlyFixable: true}, []findings.Finding{one("CRITICAL", "PARTIAL", "ACTIVE")}, false, "can be fixed"},
		"a fix that is not known (basic scanning)": {options{Worst: findings.High, OnlyFixable: true}, []findings.Finding{one("CRITICAL", "", "")}, false, "can be fixed"},
		"suppressed":                               {options{Worst: findings.High}, []findings.Finding{one("CRITICAL", "YES", "SUPPRESSED")}, true, ""},
		"closed":                                   {options{Worst: findings.High}, []findings.Finding{one("CRITICAL", "YES", "CLOSED")}, true, ""},
		"suppressed beside another":                {options{Worst: findings.High}, []findings.Finding{one("CRITICAL", "YES", "SUPPRESSED"), one("CRITICAL", "YES", "ACTIVE")}, false, "1 critical"},
		"not rated, high allowed":                  {options{Worst: findings.High}, []findings.Finding{one("UNDEFINED", "", ""), one("UNTRIAGED", "YES", "ACTIVE")}, true, ""},
		"not rated, low allowed":                   {options{Worst: findings.Low}, []findings.Finding{one("UNTRIAGED", "YES", "ACTIVE")}, false, "1 untriaged"},
		"a new severity":                           {options{Worst: findings.High}, []findings.Finding{one("CATASTROPHIC\x1b[2J", "YES", "")}, false, "1 catastrophic?[2j"},
		"a severity that ECR does not have":        {options{Worst: findings.High}, []findings.Finding{one("NONE", "YES", "")}, false, "1 none"},
		"no severity":                              {options{Worst: findings.High}, []findings.Finding{one("", "YES", "")}, false, "findings"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, status := range []string{"COMPLETE", "ACTIVE"} {
				got, err := evaluate(t, test.opts, findings.Scan{Status: status, Findings: test.found})
				if err != nil || got.Holds != test.holds || !strings.Contains(got.Reason, test.want) || got.Basis == "" {
					t.Errorf("%s: got %+v, %v", status, got, err)
				}
			}
		})
	}
}

// Each status has its meaning, whether unscanned images are denied or allowed. Findings that are bad refuse in any case.
func TestEachStatusHasItsMeaning(t *testing.T) {
	type outcome string
	const (
		holds   outcome = "holds"
		refused outcome = "refused"
		unknown outcome = "not known"
	)
	for status, want := range map[string]struct {
		denied, allowed outcome
		reason          string
	}{
		"COMPLETE":                 {holds, holds, "no finding is worse"},
		"ACTIVE":                   {holds, holds, "no finding is worse"},
		"IN_PROGRESS":              {unknown, holds, "is running"},
		"PENDING":                  {unknown, holds, "waiting to start"},
		"FAILED":                   {refused, holds, "failed (a text of ECR)"},
		"UNSUPPORTED_IMAGE":        {refused, holds, "cannot scan"},
		"SCAN_ELIGIBILITY_EXPIRED": {refused, holds, "no longer scans it"},
		"FINDINGS_UNAVAILABLE":     {refused, holds, "no findings"},
		"LIMIT_EXCEEDED":           {refused, holds, "limit of scans"},
		"IMAGE_ARCHIVED":           {refused, holds, "archived"},
		findings.NotScanned:        {refused, holds, "was not scanned"},
		findings.NoImage:           {refused, holds, "does not have it"},
		findings.NoScanner:         {refused, holds, "only private registries of ECR"},
		"A_NEW_ONE":                {refused, holds, "a_new_one"},
		"":                         {refused, holds, "status"},
	} {
		t.Run(status, func(t *testing.T) {
			for _, allow := range []bool{false, true} {
				result := want.denied
				if allow {
					result = want.allowed
				}
				opts := findings.Options{Worst: findings.High, AllowUnscanned: allow}
				got, err := evaluate(t, opts, findings.Scan{Status: status, Description: "a text\x00 of ECR"})
				text := got.Reason
				if err != nil {
					text = err.Error()
				}
				if got.Holds != (result == holds) || (err != nil) != (result == unknown) || !strings.Contains(text, want.reason) {
					t.Errorf("unscanned allowed %t: got %+v, %v, want %s", allow, got, err, result)
				}
				if result == refused && !strings.Contains(text, ": ") {
					t.Errorf("the reason does not say what to do: %s", text)
				}
				bad, err := evaluate(t, opts, findings.Scan{Status: status, Findings: []findings.Finding{{"CRITICAL", "YES", "ACTIVE", 1}}})
				if err != nil || bad.Holds || !strings.Contains(bad.Reason, "1 critical") {
					t.Errorf("unscanned allowed %t, with a critical finding: got %+v, %v", allow, bad, err)
				}
			}
		})
	}
}

func TestAScanThatCannotBeReadIsNotKnown(t *testing.T) {
	throttled := errors.New("ThrottlingException")
	got, err := findings.New(findings.Options{Scans: fixed{err: throttled}, AllowUnscanned: true, Worst: findings.Critical}).Evaluate(t.Context(), image)
	if !errors.Is(err, throttled) || got.Holds {
		t.Errorf("throttled: got %+v, %v", got, err)
	}
	got, err = evaluate(t, findings.Options{Worst: findings.High, AllowUnscanned: true}, findings.Scan{Status: "ACTIVE", More: true, Findings: []findings.Finding{{"LOW", "YES", "ACTIVE", 5000}}})
	if err == nil || got.Holds || !strings.Contains(err.Error(), "more than could be read") {
		t.Errorf("cut: got %+v, %v", got, err)
	}
	got, err = evaluate(t, findings.Options{Worst: findings.High}, findings.Scan{Status: "ACTIVE", More: true, Findings: []findings.Finding{{"CRITICAL", "YES", "ACTIVE", 1}}})
	if err != nil || got.Holds {
		t.Errorf("cut, with a bad one: got %+v, %v", got, err)
	}
}

func TestAnswersAreRememberedForATime(t *testing.T) {
	for name, test := range map[string]struct {
		scan    findings.Scan
		allow   bool
		atLeast time.Duration
		atMost  time.Duration
	}{
		"good":                   {findings.Scan{Status: "ACTIVE"}, false, 3 * time.Hour, 4 * time.Hour},
		"bad":                    {findings.Scan{Status: "ACTIVE", Findings: []findings.Finding{{"CRITICAL", "", "", 1}}}, false, 10 * time.Minute, 10 * time.Minute},
		"no scan yet":            {findings.Scan{Status: findings.NotScanned}, false, time.Minute, time.Minute},
		"no scan yet, allowed":   {findings.Scan{Status: findings.NotScanned}, true, 45 * time.Second, time.Minute},
		"running, allowed":       {findings.Scan{Status: "IN_PROGRESS"}, true, 45 * time.Second, time.Minute},
		"never scanned":          {findings.Scan{Status: "UNSUPPORTED_IMAGE"}, false, 10 * time.Minute, 10 * time.Minute},
		"never scanned, allowed": {findings.Scan{Status: "UNSUPPORTED_IMAGE"}, true, 3 * time.Hour, 4 * time.Hour},
	} {
		got, err := evaluate(t, findings.Options{Worst: findings.High, AllowUnscanned: test.allow}, test.scan)
		if d := got.Until.Sub(now); err != nil || d < test.atLeast || d > test.atMost {
			t.Errorf("%s: for %s, %v", name, d, err)
		}
	}
}

func TestTheBasisChangesWithFindingsAndRule(t *testing.T) {
	basis := func(opts findings.Options, scan findings.Scan) string {
		t.Helper()
		got, err := evaluate(t, opts, scan)
		if err != nil {
			t.Fatal(err)
		}
		return got.Basis
	}
	a, b := findings.Finding{"LOW", "YES", "ACTIVE", 1}, findings.Finding{"HIGH", "YES", "ACTIVE", 1}
	first := basis(findings.Options{Worst: findings.High}, findings.Scan{Status: "ACTIVE", Findings: []findings.Finding{a, b}})
	if basis(findings.Options{Worst: findings.High}, findings.Scan{Status: "ACTIVE", Findings: []findings.Finding{b, a}}) != first {
		t.Error("another order has another basis")
	}
	for name, other := range map[string]string{
		"a rule":     basis(findings.Options{Worst: findings.Low}, findings.Scan{Status: "ACTIVE", Findings: []findings.Finding{a, b}}),
		"a finding":  basis(findings.Options{Worst: findings.High}, findings.Scan{Status: "ACTIVE", Findings: []findings.Finding{a}}),
		"a status":   basis(findings.Options{Worst: findings.High}, findings.Scan{Status: "COMPLETE", Findings: []findings.Finding{a, b}}),
		"a new scan": basis(findings.Options{Worst: findings.High}, findings.Scan{Status: "ACTIVE", Completed: now, Findings: []findings.Finding{a, b}}),
	} {
		if other == first {
			t.Errorf("%s that is another has the same basis", name)
		}
	}
}

func TestSeveritiesOfTheConfiguration(t *testing.T) {
	for _, s := range []findings.Severity{findings.None, findings.Informational, findings.Low, findings.Medium, findings.High, findings.Critical} {
		if got, err := findings.ParseSeverity(s.String()); got != s || err != nil {
			t.Errorf("%s: got %s, %v", s, got, err)
		}
	}
	for _, text := range []string{"", "HIGH", "worst", "undefined"} {
		if _, err := findings.ParseSeverity(text); err == nil || !strings.Contains(err.Error(), "none, informational, low, medium, high, critical") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
