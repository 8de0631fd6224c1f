package auth_test

import (
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream/auth"
)

// refusalStep is an answer of a registry: the token that it refuses or accepts,
// the time before it, and whether the refusal renews.
type refusalStep struct {
	after   time.Duration
	refuse  string
	accept  string
	renews  bool
	renewed string // the token in its place
}

func TestRefusalsRenewOnceForEachToken(t *testing.T) {
	for name, steps := range map[string][]refusalStep{
		"each token that was good": {
			{refuse: "1", renews: true, renewed: "2"}, {accept: "2"},
			{refuse: "2", renews: true, renewed: "3"}, {accept: "3"},
			{refuse: "3", renews: true},
		},
		"all requests with the same one": {
			{refuse: "1", renews: true}, {refuse: "1", renews: true}, {refuse: "1", renews: true, renewed: "2"}, {refuse: "1", renews: true},
		},
		"ever more rarely if none is good": {
			{refuse: "1", renews: true, renewed: "2"}, {refuse: "2"}, {refuse: "2"},
			{after: time.Second, refuse: "2", renews: true, renewed: "3"}, {refuse: "3"},
			{after: time.Second, refuse: "3"},
			{after: time.Second, refuse: "3", renews: true, renewed: "4"},
			{after: 3 * time.Second, refuse: "4"},
			{after: time.Second, refuse: "4", renews: true, renewed: "5"},
		},
		"nor if another registry renews meanwhile": {
			{refuse: "1", renews: true, renewed: "2"}, {refuse: "3"}, {refuse: "5"},
			{after: time.Second, refuse: "7", renews: true, renewed: "8"}, {refuse: "9"},
		},
		"at once after one was good again": {
			{refuse: "1", renews: true, renewed: "2"}, {refuse: "2"}, {after: time.Second, refuse: "2", renews: true, renewed: "3"},
			{accept: "3"}, {refuse: "3", renews: true, renewed: "4"}, {refuse: "4"}, {after: time.Second, refuse: "4", renews: true},
		},
		"one that never changes": {
			{refuse: "1", renews: true, renewed: "1"}, {refuse: "1"}, {after: time.Second, refuse: "1", renews: true, renewed: "1"}, {refuse: "1"},
			{accept: "1"}, {refuse: "1", renews: true},
		},
		"a late answer to the old one changes nothing": {
			{refuse: "1", renews: true, renewed: "2"}, {accept: "1"}, {refuse: "2"},
		},
	} {
		now := time.Now()
		r := auth.NewRefusals(func() time.Time { return now })
		for i, step := range steps {
			now = now.Add(step.after)
			if step.accept != "" {
				r.Accepted(step.accept)
				continue
			}
			if got := r.Renew(step.refuse); got != step.renews {
				t.Errorf("%s: step %d: renews is %t, want %t", name, i, got, step.renews)
			}
			if step.renewed != "" {
				r.Renewed(step.refuse, step.renewed)
			}
		}
	}
}
