package denial

import (
	"encoding/json"
	"log/slog"
	"regexp"
	"slices"
	"strings"
)

// Denial is a request that AWS's policies do not allow (IAM user guide,
// "Troubleshoot access denied error messages").
type Denial struct {
	// Principal is the ARN of the caller.
	Principal string
	// Action is the denied action, such as ecr:BatchGetImage.
	Action string
	// Resource is the ARN of the resource, or "*".
	Resource string
	// Policy is the kind of policy that does not allow the action, in AWS's words:
	// "identity-based policy", "resource-based policy", "service control policy" and
	// so on. It is "" if AWS does not tell.
	Policy string
	// Explicit says that a policy forbids the action, rather than that none allows
	// it. PolicyARN is that policy, if AWS tells.
	Explicit  bool
	PolicyARN string
}

var denialForm = regexp.MustCompile(`User: (arn:\S+) is not authorized to perform: ([\w-]+:\w+)(?: on resource: (\S+))?` +
	`(?: because no ([\w -]+?) allows the [\w-]+:\w+ action| with an explicit deny in an? ([\w -]+)(?:: (arn:\S+))?)?`)

// Parse finds AWS's words for a denial in a text.
func Parse(text string) (Denial, bool) {
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

// Remedy says on one line which statement of which policy to add or remove.
func (d Denial) Remedy() string {
	switch {
	case d.Explicit && d.PolicyARN != "":
		return "a statement that denies it must go from the " + d.Policy + " " + d.PolicyARN
	case d.Explicit:
		return "a statement that denies it must go from " + d.policyName(d.Policy)
	}
	var steps []string
	for _, s := range d.statements() {
		steps = append(steps, "add to "+s.policy+": "+s.text)
	}
	return strings.Join(steps, "; and ")
}

// attrs returns the parts of the denial for a log.
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

// addition is a statement to add, and the policy to add it to.
type addition struct {
	side, policy, text string
}

// statements returns the statements to add. If AWS does not tell the policy, a
// request within one account needs the caller's policy alone, and a request from
// one account to another needs both sides'. The trust policy of a role must name
// the caller in any case (IAM user guide, "Policy evaluation logic").
func (d Denial) statements() []addition {
	identity := addition{"identity", d.policyName(identityPolicy), d.statement(false)}
	resource := addition{"resource", d.policyName(resourcePolicy), d.statement(true)}
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
	return []addition{{"policy", d.policyName(d.Policy), d.statement(false)}}
}

func (d Denial) isAssumption() bool { return strings.HasPrefix(d.Action, "sts:AssumeRole") }

// policyName names a policy of a kind.
func (d Denial) policyName(kind string) string {
	switch kind {
	case identityPolicy:
		return "the policies of " + d.policyPrincipal()
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

// statement returns the JSON of a policy statement. In a resource's policy it
// names the principal, in any other the resource. It also allows the actions that
// are always used together, so that the next request is not denied.
func (d Denial) statement(ofResource bool) string {
	s := policyStatement{Effect: "Allow", Resource: d.Resource}
	if ofResource {
		s.Resource, s.Principal = "", map[string]string{"AWS": d.policyPrincipal()}
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

// policyPrincipal returns the principal as policies name it: for the session of a
// role it is the role. The ARN of a session lacks the role's path.
func (d Denial) policyPrincipal() string {
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

// Explain appends the remedy to a text in which AWS denies something. It returns
// other texts as they are.
func Explain(text string) string {
	if d, ok := Parse(text); ok {
		return text + "; to allow it, " + d.Remedy()
	}
	return text
}

// Attrs returns log attributes for a text in which AWS denies something, and nil
// for other texts.
func Attrs(text string) []slog.Attr {
	if d, ok := Parse(text); ok {
		return d.attrs()
	}
	return nil
}
