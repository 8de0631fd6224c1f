package findings

import (
	"fmt"
	"strings"
)

// Severity is how bad a finding is. The zero value is less than any finding.
type Severity int

// The severities, from none to the worst.
const (
	None Severity = iota
	Informational
	Low
	Medium
	High
	Critical
)

// words are the severities as the configuration and ECR have them.
var words = []string{"none", "informational", "low", "medium", "high", "critical"}

// String returns the severity in lower case.
func (s Severity) String() string { return words[s] }

// ParseSeverity reads a severity of the configuration.
func ParseSeverity(text string) (Severity, error) {
	for s, word := range words {
		if text == word {
			return Severity(s), nil
		}
	}
	return None, fmt.Errorf("%q is no severity: use one of %s", text, strings.Join(words, ", "))
}

// severityOf reads a severity of ECR.
func severityOf(text string) Severity {
	switch text {
	case "UNDEFINED", "UNTRIAGED":
		return Medium
	case "NONE":
		return Critical // ECR has no such severity
	}
	s, err := ParseSeverity(strings.ToLower(text))
	if err != nil {
		return Critical
	}
	return s
}
