package ecrtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Policy is what an IAM policy document says. The order means nothing.
type Policy []Statement

// Statement is one statement of a policy. In Actions and Resources * and ?
// stand for what they do in IAM.
type Statement struct {
	Deny    bool     // or else it allows
	Actions []string // such as "ecr:BatchGetImage"
	// Resources are ARNs; any resource if empty.
	Resources []string
	// Principals are whom the policy of a resource is about: ARNs of users, roles
	// and sessions; accounts, by their number or as arn:aws:iam::<number>:root;
	// or "*". The policies of users and roles leave them empty.
	Principals []string
}

// Allow returns a statement that allows actions, on any resource.
func Allow(actions ...string) Statement { return Statement{Actions: actions} }

// Deny returns a statement that denies actions, on any resource, whatever else
// allows them.
func Deny(actions ...string) Statement { return Statement{Deny: true, Actions: actions} }

// On returns the statement for these resources alone.
func (s Statement) On(resources ...string) Statement {
	s.Resources = resources
	return s
}

// To returns the statement for these principals, as a repository's policy
// needs it.
func (s Statement) To(principals ...string) Statement {
	s.Principals = principals
	return s
}

// PullActions are what pulling from private registries needs.
func PullActions() []string {
	return []string{"ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}
}

// ParsePolicy reads an IAM policy document. It refuses what it would not heed,
// such as conditions.
func ParsePolicy(document []byte) (Policy, error) {
	var doc struct {
		Version   string
		ID        string `json:"Id"`
		Statement oneOrMore[struct {
			Sid       string
			Effect    string
			Action    oneOrMore[string]
			Resource  oneOrMore[string]
			Principal principals
		}]
	}
	dec := json.NewDecoder(bytes.NewReader(document))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("reading a policy: %w", err)
	}
	if doc.Version != "2012-10-17" && doc.Version != "2008-10-17" {
		return nil, fmt.Errorf("reading a policy: its version is %q, want 2012-10-17 or 2008-10-17", doc.Version)
	}
	var p Policy
	for i, st := range doc.Statement {
		if st.Effect != "Allow" && st.Effect != "Deny" || len(st.Action) == 0 {
			return nil, fmt.Errorf("reading a policy: statement %d needs an action, and the effect Allow or Deny", i)
		}
		p = append(p, Statement{
			Deny: st.Effect == "Deny", Actions: st.Action, Resources: st.Resource, Principals: st.Principal,
		})
	}
	return p, nil
}

// oneOrMore is a value, or an array of them.
type oneOrMore[T any] []T

func (o *oneOrMore[T]) UnmarshalJSON(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if raw[0] == '[' {
		return dec.Decode((*[]T)(o))
	}
	*o = make([]T, 1)
	return dec.Decode(&(*o)[0])
}

// principals are "*", or {"AWS": …}.
type principals []string

func (p *principals) UnmarshalJSON(raw []byte) error {
	if string(raw) == `"*"` {
		*p = principals{"*"}
		return nil
	}
	var kinds map[string]oneOrMore[string]
	if err := json.Unmarshal(raw, &kinds); err != nil {
		return err
	}
	if len(kinds) != 1 || len(kinds["AWS"]) == 0 {
		return errors.New(`a principal must be "*" or of the kind AWS`)
	}
	*p = principals(kinds["AWS"])
	return nil
}

// decision is what a policy says of an action.
type decision struct {
	allows, denies bool
	// direct tells that it allows the very principal, not only its account, which
	// within that account leaves it to the principal's own policy.
	direct bool
}

// decide says what a policy makes of an action. who is nil for a policy that
// belongs to the one who acts.
func (p Policy) decide(action, resource string, who *caller) decision {
	var d decision
	for _, st := range p {
		if !st.covers(action, resource) {
			continue
		}
		named, direct := true, true
		if who != nil {
			named, direct = who.among(st.Principals)
		}
		switch {
		case !named:
		case st.Deny:
			d.denies = true
		default:
			d.allows = true
			d.direct = d.direct || direct
		}
	}
	return d
}

func (s Statement) covers(action, resource string) bool {
	return slices.ContainsFunc(s.Actions, func(p string) bool { return matches(strings.ToLower(p), strings.ToLower(action)) }) &&
		(len(s.Resources) == 0 || slices.ContainsFunc(s.Resources, func(p string) bool { return matches(p, resource) }))
}

// matches tells whether a pattern of IAM's matches a name.
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

// judge returns why AWS would not let a caller carry out an action on a
// resource of the account owner, in AWS's words, or "". Within an account
// either side may allow; across accounts both must (IAM user guide, "Policy
// evaluation logic").
func judge(who caller, action, resource, owner string, resourcePolicy Policy) string {
	own, other := who.policy.decide(action, resource, nil), resourcePolicy.decide(action, resource, &who)
	var why string
	switch {
	case own.denies:
		why = "with an explicit deny in an identity-based policy"
	case other.denies:
		why = "with an explicit deny in a resource-based policy"
	case who.account == owner && other.direct:
		return ""
	case !own.allows:
		why = "because no identity-based policy allows the " + action + " action"
	case who.account != owner && !other.allows:
		why = "because no resource-based policy allows the " + action + " action"
	default:
		return ""
	}
	return fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s %s", who.arn, action, resource, why)
}
