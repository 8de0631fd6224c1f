package config

import (
	"fmt"
	"slices"
	"strings"
)

// Mistake is one thing that is wrong with a configuration.
type Mistake struct {
	// File is the configuration file as it was named to [Load], or the
	// [Override.Source] of the value that is wrong.
	File string
	// Line is the line in the file, from 1; 0 if the mistake is not in a line.
	Line int
	// Key is the key that is wrong, such as upstreams[1].endpoint; "" if it is
	// not about a key.
	Key string
	// Problem says what is wrong and what is expected instead. It never repeats a
	// value that may hold a secret.
	Problem string
}

// String returns the mistake as one line of text:
//
//	larder.yaml:12: upstreams[1].timeout: expected a duration such as 90s or 12h, got "soon"
func (m Mistake) String() string {
	var b strings.Builder
	if m.File != "" {
		b.WriteString(m.File)
		if m.Line > 0 {
			fmt.Fprintf(&b, ":%d", m.Line)
		}
		b.WriteString(": ")
	}
	if m.Key != "" {
		b.WriteString(m.Key + ": ")
	}
	b.WriteString(m.Problem)
	return b.String()
}

// Mistakes is everything that is wrong with a configuration: first what is in
// the file, by line, then the overrides in their order. As the error of [Load]
// it has at least one element.
type Mistakes []Mistake

// Error returns all mistakes, each on a line.
func (ms Mistakes) Error() string {
	lines := make([]string, len(ms))
	for i, m := range ms {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n")
}

// sorted returns the mistakes with those that are in the file first, by line.
func (ms Mistakes) sorted(file string) Mistakes {
	slices.SortStableFunc(ms, func(a, b Mistake) int {
		switch aIn, bIn := a.File == file, b.File == file; {
		case aIn && bIn:
			return a.Line - b.Line
		case aIn:
			return -1
		case bIn:
			return 1
		default:
			return 0
		}
	})
	return ms
}
