package cases_test

import (
	"slices"
	"testing"

	"github.com/larder-registry/larder/cmd/bench/internal/cases"
	"github.com/larder-registry/larder/cmd/bench/internal/lab"
)

func names(all []*lab.Case) []string {
	var names []string
	for _, c := range all {
		names = append(names, c.Name)
	}
	return names
}

func TestSelect(t *testing.T) {
	all := cases.All(1)
	for _, test := range []struct{ patterns, want []string }{
		{nil, names(all)},
		{[]string{"warm"}, []string{"warm"}},
		{[]string{"memory-*", "manifest", "m*"}, []string{"manifest", "memory-cold", "memory-warm"}},
	} {
		got, err := cases.Select(all, test.patterns)
		if err != nil || !slices.Equal(names(got), test.want) {
			t.Errorf("%q: %q, %v; want %q", test.patterns, names(got), err, test.want)
		}
	}
	for _, pattern := range []string{"hot-*", "["} {
		if got, err := cases.Select(all, []string{"warm", pattern}); err == nil {
			t.Errorf("%q: %q, want an error", pattern, names(got))
		}
	}
}

func TestEveryCaseHasItsOwnNameAndAHeadline(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range cases.All(1) {
		if seen[c.Name] {
			t.Errorf("two cases are called %s", c.Name)
		}
		seen[c.Name] = true
		if len(c.Headline) == 0 || c.About == "" {
			t.Errorf("%s has no headline or no description", c.Name)
		}
	}
}
