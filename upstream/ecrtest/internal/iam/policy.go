package iam

import (
	"regexp"
	"slices"
	"strings"
)

// Policy is the content of an IAM policy document. The order of statements has no
// meaning.
type Policy []Statement

// Statement is one statement of a policy. In Actions and Resources, * and ? are the
// wildcards of IAM.
type Statement struct {
	Deny    bool     // denies the actions; false allows them
	Actions []string // such as "ecr:BatchGetImage"
	// Resources are ARNs; empty means any resource.
	Resources []string
	// Principals are the callers that the policy of a resource applies to: ARNs of
	// users, roles and sessions; accounts, by their number or as
	// arn:aws:iam::<number>:root; or "*". They are empty in the policies of users and
	// roles.
	Principals []string
}

// Allow returns a statement that allows actions on any resource.
func Allow(actions ...string) Statement { return Statement{Actions: actions} }

// Deny returns a statement that denies actions on any resource. A denial overrides
// every permission.
func Deny(actions ...string) Statement { return Statement{Deny: true, Actions: actions} }

// On returns the statement restricted to these resources.
func (s Statement) On(resources ...string) Statement {
	s.Resources = resources
	return s
}

// To returns the statement restricted to these principals. The policy of a
// repository needs them.
func (s Statement) To(principals ...string) Statement {
	s.Principals = principals
	return s
}

// PullActions returns the actions that a pull from a private registry needs.
func PullActions() []string {
	return []string{"ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}
}

// decision is the result of evaluating one policy for one action.
type decision struct {
	allows, denies bool
	// direct is set if a statement allows the principal itself, not only its account.
	// Within that account such a statement suffices; a statement for the account
	// leaves the decision to the principal's own policy.
	direct bool
}

// decide evaluates the policy for an action on a resource. named reports whether
// the principals of a statement include the caller, and whether they name the caller
// directly.
func (p Policy) decide(action, resource string, named func(principals []string) (included, direct bool)) decision {
	var d decision
	for _, st := range p {
		if !st.covers(action, resource) {
			continue
		}
		included, direct := named(st.Principals)
		switch {
		case !included:
		case st.Deny:
			d.denies = true
		default:
			d.allows = true
			d.direct = d.direct || direct
		}
	}
	return d
}

// covers reports whether the statement applies to an action on a resource.
func (s Statement) covers(action, resource string) bool {
	return slices.ContainsFunc(s.Actions, func(p string) bool { return matches(strings.ToLower(p), strings.ToLower(action)) }) &&
		(len(s.Resources) == 0 || slices.ContainsFunc(s.Resources, func(p string) bool { return matches(p, resource) }))
}

// matches reports whether a name matches a pattern of IAM.
func matches(pattern, name string) bool {
	if pattern == "*" || pattern == name {
		return true
	}
	if !strings.ContainsAny(pattern, "*?") {
		return false
	}
	expr := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile(`^` + expr + `$`).MatchString(name)
}
