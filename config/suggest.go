package config

import (
	"fmt"
	"strings"
)

// unknown returns the problem of a key or variable with an unknown name. It names
// the known one that is probably meant, or all if none is similar.
func unknown(what, name string, known []string) string {
	if near, ok := nearest(name, known); ok {
		return fmt.Sprintf("unknown %s; did you mean %s?", what, near)
	}
	return fmt.Sprintf("unknown %s; expected %s", what, oneOf(known))
}

// oneOf lists alternatives: "a", "a or b", "a, b or c".
func oneOf(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// nearest returns the candidate with the fewest typing mistakes in name, if these
// are few enough. A candidate that begins with name counts as one mistake.
func nearest(name string, candidates []string) (string, bool) {
	name = cut(name)
	best, limit := "", len(name)/4+2
	for _, candidate := range candidates {
		d := distance(name, candidate)
		if len(name) > 2 && strings.HasPrefix(candidate, name) {
			d = min(d, 1)
		}
		if d < limit {
			best, limit = candidate, d
		}
	}
	return best, best != ""
}

// distance returns how many bytes of a must be inserted, removed or replaced to get
// b (Levenshtein distance).
func distance(a, b string) int {
	row := make([]int, len(b)+1) // the distance of a prefix of a to each prefix of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
