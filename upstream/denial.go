package upstream

import (
	"encoding/json"
	"log/slog"
	"regexp"
	"slices"
	"strings"
)

// Denial is what AWS says of a request that policies do not allow (IAM user
// guide, "Troubleshoot access denied error messages").
type Denial struct {
	// Principal is the ARN of who asked.
	Principal string
	// Action is what was asked for, such as ecr:BatchGetImage.
	Action string
	// Resource is the ARN of what it was asked of, or "*".
	Resource string
	// Policy is the kind of policy that does not allow it, as AWS calls it:
	// "identity-based policy", "resource-based policy", "service control policy" and
	// so on; "" where AWS does not tell.
	Policy string
	// Explicit says that the policy forbids it, rather than says nothing; PolicyARN
	// is which one, where AWS tells.
	Explicit  bool
	PolicyARN string
}

var denialForm = regexp.MustCompile(`User: (arn:\S+) is not authorized to perform: ([\w-]+:\w+)(?: on resource: (\S+))?` +
	`(?: because no ([\w -]+?) allows the [\w-]+:\w+ action| with an explicit deny in an? ([\w -]+)(?:: (arn:\S+))?)?`)

// ParseDenial finds AWS's words for a denial in a text.
func ParseDenial(text string) (Denial, bool) {
	m := denialForm.FindStringSubmatch(text)
	if m == nil {
		return Denial{}, false
	}
	d := Denial{
		Principal: m[1],
		Action:    m[2],
		Resource:  strings.TrimRight(m[3], ".,;"),
		Policy:    m[4],
		Explicit:  m[5] != "",
		PolicyARN: strings.TrimRight(m[6], ".,;"),
	}
	if d.Explicit {
		d.Policy = strings.TrimSpace(m[5])
	}
	if d.Resource == "" {
		d.Resource = "*"
	}
	return d, true
}

// A policyStatement is in the order in which IAM's documentation writes it.
type policyStatement struct {
	Effect    string
	Principal map[string]string `json:",omitempty"`
	Action    any
	Resource  string `json:",omitempty"`
}

const (
	identityPolicy = "identity-based policy"
	resourcePolicy = "resource-based policy"
)

// Remedy says on one line what would allow what was denied, and where.
func (d Denial) Remedy() string {
	switch {
	case d.Explicit && d.PolicyARN != "":
		return "a statement that denies it must go from the " + d.Policy + " " + d.PolicyARN
	case d.Explicit:
		return "a statement that denies it must go from " + d.place(d.Policy)
	}
	var steps []string
	for _, s := range d.statements() {
		steps = append(steps, "add to "+s.place+": "+s.text)
	}
	return strings.Join(steps, "; and ")
}

// attrs are the parts of the denial for a log.
func (d Denial) attrs() []slog.Attr {
	attrs := []slog.Attr{
		slog.String("action", d.Action),
		slog.String("principal", d.Principal),
		slog.String("resource", d.Resource),
		slog.String("policy", d.Policy),
		slog.Bool("explicit", d.Explicit),
	}
	if d.Explicit {
		return attrs
	}
	for _, s := range d.statements() {
		attrs = append(attrs, slog.String(s.side+"_statement", s.text))
	}
	return attrs
}

// addition is a statement, and the policy to which it belongs.
type addition struct {
	side, place, text string
}

// statements returns what would have to be added. Where AWS does not tell which
// policy it is, both sides must allow what goes from one account to another, and
// within one the caller's own is enough; a role's trust policy must name the
// caller in any case (IAM user guide, "Policy evaluation logic").
func (d Denial) statements() []addition {
	identity := addition{"identity", d.place(identityPolicy), d.statement(false)}
	resource := addition{"resource", d.place(resourcePolicy), d.statement(true)}
	switch d.Policy {
	case identityPolicy:
		return []addition{identity}
	case resourcePolicy:
		return []addition{resource}
	case "":
		owner := arnAccount(d.Resource)
		if owner == "" || owner == arnAccount(d.Principal) && !d.isAssumption() {
			return []addition{identity}
		}
		return []addition{identity, resource}
	}
	return []addition{{"policy", d.place(d.Policy), d.statement(false)}}
}

func (d Denial) isAssumption() bool { return strings.HasPrefix(d.Action, "sts:AssumeRole") }

// place names a policy of a kind.
func (d Denial) place(kind string) string {
	switch kind {
	case identityPolicy:
		return "the policies of " + d.who()
	case resourcePolicy:
		if d.isAssumption() {
			return "the trust policy of " + d.Resource
		}
		if _, name, ok := strings.Cut(d.Resource, ":repository/"); ok {
			return "the repository policy of " + name + " in account " + arnAccount(d.Resource)
		}
		return "the policy of " + d.Resource
	}
	return "the " + kind
}

// statement returns the JSON of a policy statement: that of a resource says for
// whom, and that of anything else on what. It allows what belongs together, so
// that the next request is not denied for want of the next action.
func (d Denial) statement(ofResource bool) string {
	s := policyStatement{Effect: "Allow", Resource: d.Resource}
	if ofResource {
		s.Resource, s.Principal = "", map[string]string{"AWS": d.who()}
	}
	actions := []string{d.Action}
	for _, set := range [][]string{
		{"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"},
		{"ecr-public:GetAuthorizationToken", "sts:GetServiceBearerToken"},
	} {
		if slices.Contains(set, d.Action) {
			actions = set
		}
	}
	if s.Action = actions; len(actions) == 1 {
		s.Action = actions[0]
	}
	text, err := json.Marshal(s)
	if err != nil {
		return "" // strings always marshal
	}
	return string(text)
}

// who is the principal as policies name it: of a role's session the role. The
// path of a role is not in the session's ARN.
func (d Denial) who() string {
	parts := strings.SplitN(d.Principal, ":", 6)
	if len(parts) == 6 && parts[2] == "sts" {
		if role, ok := strings.CutPrefix(parts[5], "assumed-role/"); ok {
			role, _, _ = strings.Cut(role, "/")
			return "arn:" + parts[1] + ":iam::" + parts[4] + ":role/" + role
		}
	}
	return d.Principal
}

// arnAccount returns the account in an ARN, or "".
func arnAccount(arn string) string {
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 {
		return parts[4]
	}
	return ""
}

// explained adds what would help to a text in which AWS denies something.
func explained(text string) string {
	if d, ok := ParseDenial(text); ok {
		return text + "; to allow it, " + d.Remedy()
	}
	return text
}

func denialAttrs(text string) []slog.Attr {
	if d, ok := ParseDenial(text); ok {
		return d.attrs()
	}
	return nil
}
