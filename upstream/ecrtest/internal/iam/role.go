package iam

import (
	"cmp"
	"strings"
	"time"
)

// Role is an IAM role.
type Role struct {
	ARN    string // such as arn:aws:iam::123456789012:role/node
	Policy Policy // the permissions of its sessions
	// Trusts names the principals that may assume the role, in the forms of
	// [Statement.Principals]. A principal of another account, or one that is trusted
	// only by its account, also needs a policy that allows sts:AssumeRole.
	Trusts     []string
	ExternalID string // required by AssumeRole, unless empty
	// WebIdentity is the token that AssumeRoleWithWebIdentity accepts for the role,
	// such as the token in the file that IAM roles for service accounts (IRSA) mount.
	// Empty means that no token is accepted.
	WebIdentity string
	// Duration is the length of sessions that do not ask for one; 0 means 1 h.
	Duration time.Duration
}

// AssumeRole is the action of assuming a role.
const AssumeRole = "sts:AssumeRole"

// Name returns the role's name, without its path.
func (r *Role) Name() string { return nameIn(r.ARN) }

// Admits reports whether a principal may assume the role and gives the external ID
// that the role requires. A principal that the role does not trust may never assume
// it, whatever the principal's own policy allows.
func (r *Role) Admits(p Principal, externalID string) bool {
	if r.ExternalID != "" && r.ExternalID != externalID {
		return false
	}
	trusted, _ := p.among(r.Trusts)
	return trusted && p.Denied(AssumeRole, r.ARN, AccountOf(r.ARN), Policy{Allow(AssumeRole).To(r.Trusts...)}) == ""
}

// duration returns the length of a session that asks for d, where 0 asks for none.
func (r *Role) duration(d time.Duration) time.Duration { return cmp.Or(d, r.Duration, time.Hour) }

// session returns the principal of a session of the role.
func (r *Role) session(name string) Principal {
	partition, _, _ := strings.Cut(strings.TrimPrefix(r.ARN, "arn:"), ":")
	account := AccountOf(r.ARN)
	return Principal{
		ARN:     "arn:" + partition + ":sts::" + account + ":assumed-role/" + r.Name() + "/" + name,
		ID:      "AROA" + strings.ToUpper(r.Name()) + ":" + name,
		Account: account,
		role:    r.ARN,
		policy:  r.Policy,
	}
}
