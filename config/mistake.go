package config

import (
	"fmt"
	"slices"
	"strings"
)

// Mistake is one thing that is wrong with a configuration.
type Mistake struct {
	// File is the path of the configuration file as [Load] got it, or the
	// [Override.Source] of the wrong value.
	File string
	// Line is the line in the file, from 1; 0 if the mistake concerns no line.
	Line int
	// Key is the wrong key, such as upstreams[1].endpoint; "" if the mistake
	// concerns no key.
	Key string
	// Problem says what is wrong and what is expected instead. It never shows a
	// value that may contain a secret.
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

// Mistakes is everything that is wrong with a configuration: the mistakes in the
// file by line, and then those in overrides in their order. As the error of [Load]
// it is not empty.
type Mistakes []Mistake

// Error returns all mistakes, each on a line.
func (ms Mistakes) Error() string {
	lines := make([]string, len(ms))
	for i, m := range ms {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n")
}

// sorted returns the mistakes in the file, by line, before the others.
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
