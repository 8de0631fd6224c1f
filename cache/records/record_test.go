package records_test

import (
	"testing"

	"github.com/larder-registry/larder/cache/records"
)

func TestMembershipKeepsTheBetterProof(t *testing.T) {
	order := []records.Proof{records.ByWord, records.ProvenElsewhere, records.NotTold, records.Proven}
	for i, better := range order {
		for _, worse := range append([]records.Proof{"of a later release"}, order[:i]...) {
			a, b := records.Member{Proven: better}, records.Member{Proven: worse}
			if got := a.With(b).Proven; got != better {
				t.Errorf("%q with %q is %q", better, worse, got)
			}
			if got := b.With(a).Proven; got != better {
				t.Errorf("%q with %q is %q", worse, better, got)
			}
		}
	}
}
