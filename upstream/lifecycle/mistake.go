package lifecycle

import "strings"

// Mistake is one thing that is wrong with a policy.
type Mistake struct {
	// Key is the key with the mistake, such as rules[1].selection.countUnit; "" if
	// the mistake concerns the whole document.
	Key     string
	Problem string
}

// Mistakes is everything that is wrong with a policy, as an error.
type Mistakes []Mistake

// Error returns all mistakes, each on a line.
func (ms Mistakes) Error() string {
	lines := make([]string, len(ms))
	for i, m := range ms {
		lines[i] = m.Problem
		if m.Key != "" {
			lines[i] = m.Key + ": " + m.Problem
		}
	}
	return "lifecycle policy: " + strings.Join(lines, "\n")
}
