package policy

import (
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Result is what a decision comes to.
type Result string

// The results.
const (
	Allowed Result = "allowed"
	Refused Result = "refused"
	Unknown Result = "unknown" // it cannot be decided now
)

// The names of conditions, as in the configuration.
const (
	signed   = "signed"
	findings = "findings"
	age      = "age"
)

// Verdict is what one condition says.
type Verdict struct {
	Condition string `json:"condition"`
	Result    Result `json:"result"`
	Reason    string `json:"reason"`
	Basis     string `json:"basis,omitempty"`
}

// Decision is what a rule says about an image. It is not changed once it is made.
type Decision struct {
	Host       string        `json:"upstream"`
	Repository string        `json:"repository"`
	Digest     digest.Digest `json:"digest"`
	Rule       string        `json:"rule"`
	Mode       Mode          `json:"mode"`
	Result     Result        `json:"result"`
	// Exempt says that no runtime can run the image: it is a signature, an SBOM or an attestation.
	Exempt bool `json:"exempt,omitempty"`
	// Via is the allowed index through which the image is.
	Via digest.Digest `json:"via,omitempty"`
	// Conditions are the verdicts of the rule's conditions.
	Conditions []Verdict `json:"conditions,omitempty"`
	// Seen is when the image was first asked for.
	Seen time.Time `json:"seen"`
	// At is when the decision was made.
	At time.Time `json:"at"`
	// Until is when it is made again; zero for never.
	Until time.Time `json:"until,omitzero"`
	// Stands says why it could not be made again at its time; "" if it need not.
	Stands string `json:"stands,omitempty"`

	basis string // of the rule
}

// holdsAt reports whether a decision of a rule still holds.
func (d *Decision) holdsAt(now time.Time, r *Rule) bool {
	return d.basis == r.Basis && !now.Before(d.At) && (d.Until.IsZero() || now.Before(d.Until))
}

// Why returns what is missing and what to do, or why the image is allowed.
func (d *Decision) Why() string {
	if d.Exempt {
		return "it is a signature, an SBOM or an attestation, which no runtime can run"
	}
	var reasons []string
	for _, v := range d.Conditions {
		if v.Result == d.Result {
			reasons = append(reasons, v.Condition+": "+v.Reason)
		}
	}
	return strings.Join(reasons, "; ")
}

// String returns the decision as one line of text.
func (d *Decision) String() string {
	image := fmt.Sprintf("%s/%s@%s", d.Host, d.Repository, d.Digest)
	switch d.Result {
	case Refused:
		return fmt.Sprintf("the policy %q refuses %s: %s", d.Rule, image, d.Why())
	case Unknown:
		return fmt.Sprintf("the policy %q cannot be decided now for %s: %s", d.Rule, image, d.Why())
	case Allowed:
	}
	return fmt.Sprintf("the policy %q allows %s: %s", d.Rule, image, d.Why())
}
