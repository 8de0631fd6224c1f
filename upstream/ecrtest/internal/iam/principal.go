package iam

import (
	"fmt"
	"slices"
	"strings"
)

// Principal makes requests: a user, or a session of a role. The zero Principal is
// anonymous. It is a value of the moment it was returned at: later changes of the
// user or the role are not in it.
type Principal struct {
	ARN     string
	ID      string // such as AIDA…; for a session AROA…:name
	Account string

	role   string // ARN of the role, for a session
	policy Policy
}

// newUser returns the user of an ARN.
func newUser(arn string, policy Policy) Principal {
	return Principal{
		ARN: arn, ID: "AIDA" + strings.ToUpper(nameIn(arn)), Account: AccountOf(arn), policy: slices.Clone(policy),
	}
}

// Denied returns the reason, in the words of AWS, why the principal may not carry
// out an action on a resource of the account owner. It returns "" if the principal
// may. resourcePolicy is the policy of the resource, or nil. Within an account a
// permission by either policy suffices; across accounts both must allow the action
// (IAM user guide, "Policy evaluation logic").
func (p Principal) Denied(action, resource, owner string, resourcePolicy Policy) string {
	own := p.policy.decide(action, resource, func([]string) (bool, bool) { return true, true })
	other := resourcePolicy.decide(action, resource, p.among)
	var reason string
	switch {
	case own.denies:
		reason = "with an explicit deny in an identity-based policy"
	case other.denies:
		reason = "with an explicit deny in a resource-based policy"
	case p.Account == owner && other.direct:
		return ""
	case !own.allows:
		reason = "because no identity-based policy allows the " + action + " action"
	case p.Account != owner && !other.allows:
		reason = "because no resource-based policy allows the " + action + " action"
	default:
		return ""
	}
	return fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s %s", p.ARN, action, resource, reason)
}

// Is reports whether an ARN is that of the principal, or that of the role of a session.
func (p Principal) Is(arn string) bool { return arn == p.ARN || p.role != "" && arn == p.role }

// among reports whether principals include this one, and whether they name it
// directly and not only by its account.
func (p Principal) among(principals []string) (included, direct bool) {
	for _, named := range principals {
		switch {
		case named == "*", p.Is(named):
			return true, true
		case named == p.Account, strings.HasPrefix(named, "arn:") && strings.HasSuffix(named, ":iam::"+p.Account+":root"):
			included = true
		}
	}
	return included, false
}
