package policy

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
)

// An Image is the manifest that is decided about.
type Image struct {
	Host       string // the upstream's host, in canonical form
	Repository string
	Digest     digest.Digest
	MediaType  string // of the manifest
}

// A Condition is one condition of a rule: signed, findings or age. Evaluate may be called from several
// goroutines at once. An error says that the condition cannot be decided now (throttled, timed out,
// unreachable); it is never used for a condition that does not hold.
type Condition interface {
	Evaluate(ctx context.Context, image Image) (Answer, error)
}

// An Answer is what a condition says about an image.
type Answer struct {
	Holds  bool
	Reason string    // for people: what holds, or what is missing and what to do; without secrets
	Until  time.Time // when the condition must be asked again at the latest; zero for never
	Basis  string    // a digest of what the answer rests on (keys, trust policy, list of referrers); another basis means another answer
}
