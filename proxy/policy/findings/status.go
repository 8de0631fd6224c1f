package findings

import (
	"fmt"
	"strings"
)

// kind is what a status means.
type kind int

const (
	unscanned kind = iota // there are no findings to decide by
	judged                // the findings decide
	running               // the findings come later
)

func kindOf(status string) kind {
	switch status {
	case "COMPLETE", "ACTIVE":
		return judged
	case "IN_PROGRESS", "PENDING":
		return running
	}
	return unscanned
}

// meanings are the statuses for people, and what to do about them.
var meanings = map[string]struct{ text, advice string }{
	"IN_PROGRESS":              {"its scan is running", ""},
	"PENDING":                  {"its scan is waiting to start", ""},
	"FAILED":                   {"its scan failed", "start a scan in ECR"},
	"UNSUPPORTED_IMAGE":        {"ECR cannot scan its operating system or type", "allow it with unscanned: allow in a rule of its own"},
	"SCAN_ELIGIBILITY_EXPIRED": {"its findings are old, as ECR no longer scans it", "push it again, or extend the duration of scanning in ECR"},
	"FINDINGS_UNAVAILABLE":     {"ECR has no findings for it", "turn scanning on for its repository, and scan it"},
	"LIMIT_EXCEEDED":           {"it is beyond ECR's limit of scans", "scan it tomorrow, or use enhanced scanning"},
	"IMAGE_ARCHIVED":           {"it is archived in ECR, which does not scan it", "restore it in ECR"},
	NotScanned:                 {"it was not scanned", "turn scanning on for its repository, or start a scan in ECR"},
	NoImage:                    {"ECR does not have it", "push it again"},
	NoScanner:                  {"only private registries of ECR scan images", "take findings out of the rule for this registry"},
}

// meaning returns what a scan's status means, with ECR's text.
func meaning(scan Scan) string {
	known, ok := meanings[scan.Status]
	if !ok {
		return fmt.Sprintf("its scan has the status %s", word(scan.Status))
	}
	if text := strings.Map(printable, scan.Description); text != "" && kindOf(scan.Status) == unscanned {
		const longest = 200
		return fmt.Sprintf("%s (%.*s)", known.text, longest, text)
	}
	return known.text
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return -1
	}
	return r
}

// advice returns what to do about an image that is not scanned.
func advice(status string) string {
	if known, ok := meanings[status]; ok {
		return known.advice
	}
	return "look at its scan in ECR"
}
