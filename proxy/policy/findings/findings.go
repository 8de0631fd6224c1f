package findings

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/larder-registry/larder/proxy/policy"
)

// Scans reads what ECR's scans found. It may be called by several goroutines.
type Scans interface {
	// Scan reads the scan of an image. An image that was not scanned is not an error.
	Scan(ctx context.Context, image policy.Image) (Scan, error)
}

// Scan is what ECR says about the scan of an image.
type Scan struct {
	Status      string // ECR's word, NotScanned, NoImage or NoScanner
	Description string // ECR's text about the status
	Completed   time.Time
	Findings    []Finding
	More        bool // there are more findings than these
}

// Statuses beside those of ECR.
const (
	NotScanned = "SCAN_NOT_FOUND"  // ECR has no scan of the image
	NoImage    = "IMAGE_NOT_FOUND" // ECR does not have the image
	NoScanner  = "NO_SCANNER"      // the registry is not a private one of ECR
)

// Finding is a count of findings that are alike.
type Finding struct {
	Severity string // ECR's word
	Fix      string // YES, NO, PARTIAL, or "" if it is not known
	Status   string // ACTIVE, SUPPRESSED, CLOSED, or "" if it is not known
	Count    int
}

// Options are the settings of a [Condition].
type Options struct {
	Scans Scans
	// Worst is the worst severity that is allowed. The zero value allows no finding at all.
	Worst Severity
	// OnlyFixable lets only those findings count for which there is a fix.
	OnlyFixable bool
	// AllowUnscanned says that images without a scan are allowed.
	AllowUnscanned bool

	// Recheck is how long good findings count. Zero means 4 hours. Up to a quarter is taken off at random, so that nodes
	// that started together do not ask together: ECR publishes no quota for these requests.
	Recheck time.Duration
	// Retry is how long a refusal counts. Zero means 10 minutes. It is a minute for an image that has no scan yet.
	Retry time.Duration
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// soon is how long an image that has no scan yet is left alone. A scan on push takes about a minute.
const soon = time.Minute

// Condition is a [policy.Condition] that holds for images with few enough findings. It may be used by several
// goroutines.
type Condition struct{ opts Options }

// New returns a condition.
func New(opts Options) *Condition {
	if opts.Recheck == 0 {
		opts.Recheck = 4 * time.Hour
	}
	if opts.Retry == 0 {
		opts.Retry = 10 * time.Minute
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Condition{opts}
}

// Evaluate is for [policy.Condition]. A scan that is running is an error, as the answer is not known yet.
func (c *Condition) Evaluate(ctx context.Context, image policy.Image) (policy.Answer, error) {
	scan, err := c.opts.Scans.Scan(ctx, image)
	if err != nil {
		return policy.Answer{}, fmt.Errorf("read the scan findings of %s@%s: %w", image.Repository, image.Digest, err)
	}
	answer, err := c.judge(scan)
	if err != nil {
		return policy.Answer{}, fmt.Errorf("the scan findings of %s@%s: %w", image.Repository, image.Digest, err)
	}
	answer.Basis = c.basisOf(scan)
	return answer, nil
}

// judge decides by a scan.
func (c *Condition) judge(scan Scan) (policy.Answer, error) {
	now := c.opts.Now()
	if bad := c.bad(scan.Findings); bad != "" {
		return policy.Answer{
			Reason: fmt.Sprintf("%s, worse than %s: build it with the fixes, or suppress the findings in ECR", bad, c.opts.Worst),
			Until:  now.Add(c.opts.Retry),
		}, nil
	}
	kind := kindOf(scan.Status)
	switch {
	case scan.More:
		return policy.Answer{}, fmt.Errorf("there are more than could be read, and none so far is worse than %s", c.opts.Worst)
	case kind == judged:
		return policy.Answer{Holds: true, Reason: "no finding is worse than " + c.opts.Worst.String(), Until: now.Add(spread(c.opts.Recheck))}, nil
	case c.opts.AllowUnscanned:
		again := c.opts.Recheck
		if kind == running || scan.Status == NotScanned {
			again = soon
		}
		return policy.Answer{Holds: true, Reason: meaning(scan) + ", which the rule allows", Until: now.Add(spread(again))}, nil
	case kind == running:
		return policy.Answer{}, fmt.Errorf("they are not known yet: %s", meaning(scan))
	}
	again := c.opts.Retry
	if scan.Status == NotScanned {
		again = soon
	}
	return policy.Answer{Reason: meaning(scan) + ": " + advice(scan.Status), Until: now.Add(again)}, nil
}

// spread takes up to a quarter off a time.
func spread(d time.Duration) time.Duration { return d - time.Duration(rand.Float64()*float64(d)/4) }

// bad describes the findings that count and are worse than allowed, or is empty.
func (c *Condition) bad(all []Finding) string {
	counts := make(map[string]int)
	var found []string
	for _, f := range all {
		if f.Status == "SUPPRESSED" || f.Status == "CLOSED" || c.opts.OnlyFixable && f.Fix == "NO" || severityOf(f.Severity) <= c.opts.Worst {
			continue
		}
		if counts[f.Severity] == 0 {
			found = append(found, f.Severity)
		}
		counts[f.Severity] += f.Count
	}
	slices.SortFunc(found, func(a, b string) int {
		if by := int(severityOf(b)) - int(severityOf(a)); by != 0 {
			return by
		}
		return strings.Compare(a, b)
	})
	for i, severity := range found {
		found[i] = fmt.Sprintf("%d %s", counts[severity], word(severity))
	}
	switch {
	case len(found) == 0:
		return ""
	case c.opts.OnlyFixable:
		return "it has findings that can be fixed: " + strings.Join(found, ", ")
	}
	return "it has findings: " + strings.Join(found, ", ")
}

// word returns a severity of ECR for people; a new one may be any text.
func word(severity string) string {
	const longest = 40
	return strings.ToLower(fmt.Sprintf("%.*s", longest, strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '?'
		}
		return r
	}, severity)))
}

// basisOf returns a digest of what an answer rests on.
func (c *Condition) basisOf(scan Scan) string {
	lines := []string{fmt.Sprintf("%d %t %t %q %t %d", c.opts.Worst, c.opts.OnlyFixable, c.opts.AllowUnscanned, scan.Status, scan.More, scan.Completed.Unix())}
	for _, f := range scan.Findings {
		lines = append(lines, fmt.Sprintf("%q %q %q %d", f.Severity, f.Fix, f.Status, f.Count))
	}
	slices.Sort(lines[1:])
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:])
}
