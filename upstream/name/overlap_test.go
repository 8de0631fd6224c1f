package name_test

import (
	"testing"

	"github.com/larder-registry/larder/upstream/name"
)

func TestPatternsOverlapAndCoverByWhatTheyMatch(t *testing.T) {
	for _, test := range []struct {
		p, q            string
		overlap, covers bool // p covers q
	}{
		{"*/*", "docker.io/library/redis", true, true},
		{"docker.io/library/redis", "*/*", true, false},
		{"docker.io/*", "docker.io/library/*", true, true},
		{"docker.io/library/*", "docker.io/*", true, false},
		{"docker.io/library/*", "docker.io/team/*", false, false},
		{"docker.io/*", "quay.io/*", false, false},
		{"docker.io/*-app/x", "docker.io/team-*/x", true, false},
		{"docker.io/*-app/x", "docker.io/team-*/y", false, false},
		{"docker.io/a*b", "docker.io/a*b", true, true},
		{"docker.io/a", "docker.io/a/b", false, false},
		{"docker.io/a/*", "docker.io/a", false, false},
		{"*.example.com/*", "a.example.com/x", true, true},
		{"*.example.com/*", "a*.example.com/x", true, true},
		{"a*.example.com/*", "*b.example.com/x", true, false},
		{"a*.example.com/*", "a.example.com/x", false, false},
		{"*.example.com/*", "*.*.example.com/x", false, false},
		{"*.dkr.ecr.*.amazonaws.com/*", "*.dkr.ecr.*.amazonaws.com/prod/*", true, true},
		{"*.dkr.ecr.*.amazonaws.com/prod/*", "123456789012.dkr.ecr.us-east-1.amazonaws.com/*", true, false},
		{"*.dkr.ecr.*.amazonaws.com/*", "123456789012.dkr.ecr.us-east-1.amazonaws.com/prod/*", true, true},
	} {
		p, okP := name.ParsePattern(test.p)
		q, okQ := name.ParsePattern(test.q)
		if !okP || !okQ {
			t.Fatalf("%s or %s is no pattern", test.p, test.q)
		}
		if p.Overlaps(q) != test.overlap || q.Overlaps(p) != test.overlap {
			t.Errorf("%s and %s overlap: %v and %v, want %v", p, q, p.Overlaps(q), q.Overlaps(p), test.overlap)
		}
		if got := p.Covers(q); got != test.covers {
			t.Errorf("%s covers %s: %v", p, q, got)
		}
	}
}
