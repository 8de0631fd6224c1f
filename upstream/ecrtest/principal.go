package ecrtest

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// Key is what signs calls: credentials of a user, or of a session of a role.
type Key struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string    // empty for a user's
	Expires         time.Time // by the server's clock; zero for a user's
}

// Role is an IAM role.
type Role struct {
	ARN    string // such as arn:aws:iam::123456789012:role/node
	Policy Policy // what its sessions may do
	// Trusts is who may assume it, in the forms of [Statement.Principals]. Who is in
	// another account, or trusted as an account only, needs a policy that allows
	// sts:AssumeRole too.
	Trusts     []string
	ExternalID string // that AssumeRole must give, unless empty
	// WebIdentity is the token that AssumeRoleWithWebIdentity takes for it, as the
	// one in a file that IAM roles for service accounts (IRSA) mount. None if empty.
	WebIdentity string
	// Duration is how long sessions last that do not say so; 1 h if 0.
	Duration time.Duration
}

// caller is who makes a request: a user, or a session of a role.
type caller struct {
	arn     string
	id      string // such as AIDA…, for a session AROA…:name
	role    string // ARN of the role that a session is of
	account string
	policy  Policy
}

// key is what an access key stands for.
type key struct {
	arn     string    // of the user or the session
	session string    // the token that must come with it, if not empty
	expires time.Time // never if zero
}

// among tells whether principals name the caller, and whether one does so
// directly and not by the account.
func (c caller) among(principals []string) (named, direct bool) {
	for _, p := range principals {
		switch {
		case p == "*", p == c.arn, c.role != "" && p == c.role:
			return true, true
		case p == c.account, strings.HasPrefix(p, "arn:") && strings.HasSuffix(p, ":iam::"+c.account+":root"):
			named = true
		}
	}
	return named, false
}

// accountOf returns the account in an ARN.
func accountOf(arn string) string {
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 {
		return parts[4]
	}
	return ""
}

// lastElement returns what follows the last slash of an ARN.
func lastElement(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

// AddUser adds an IAM user, or replaces its policy, and returns a new access key
// of the user's. arn is like arn:aws:iam::123456789012:user/ci.
func (a *AWS) AddUser(arn string, policy Policy) Key {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addUser(arn, policy)
	a.sessions++
	k := Key{AccessKeyID: fmt.Sprintf("AKIDLARDER%06d", a.sessions), SecretAccessKey: "secret"}
	a.keys[k.AccessKeyID] = key{arn: arn}
	return k
}

// addUser is AddUser without a key. The caller holds a.mu, or has a alone.
func (a *AWS) addUser(arn string, policy Policy) {
	a.users[arn] = caller{
		arn: arn, id: "AIDA" + strings.ToUpper(lastElement(arn)), account: accountOf(arn), policy: slices.Clone(policy),
	}
}

// AddRole adds an IAM role, or replaces it, for its sessions too.
func (a *AWS) AddRole(r Role) {
	r.Policy, r.Trusts = slices.Clone(r.Policy), slices.Clone(r.Trusts)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.roles[r.ARN] = &r
}

// role returns the role of an ARN, or nil. Nobody changes it.
func (a *AWS) role(arn string) *Role {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.roles[arn]
}

// Assume begins a session of a role, whoever may assume it, and returns its
// credentials.
func (a *AWS) Assume(role, session string) (Key, error) {
	r := a.role(role)
	if r == nil {
		return Key{}, fmt.Errorf("assuming the role %s: %w", role, fs.ErrNotExist)
	}
	k, _ := a.begin(r, session, 0)
	return k, nil
}

// begin begins a session.
func (a *AWS) begin(r *Role, name string, d time.Duration) (Key, caller) {
	if d == 0 {
		d = r.Duration
	}
	if d == 0 {
		d = time.Hour
	}
	// The form of S3's dates in STS's answers has whole seconds.
	expires := a.now().Add(d).Truncate(time.Second)
	who := sessionOf(r, name)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions++
	k := Key{
		AccessKeyID:     fmt.Sprintf("ASIALARDER%06d", a.sessions),
		SecretAccessKey: "secret",
		SessionToken:    fmt.Sprintf("session-%06d", a.sessions),
		Expires:         expires,
	}
	a.keys[k.AccessKeyID] = key{arn: who.arn, session: k.SessionToken, expires: k.Expires}
	return k, who
}

// sessionOf returns the session of a role as a caller.
func sessionOf(r *Role, name string) caller {
	roleName := lastElement(r.ARN)
	part, _, _ := strings.Cut(strings.TrimPrefix(r.ARN, "arn:"), ":")
	account := accountOf(r.ARN)
	return caller{
		arn:     "arn:" + part + ":sts::" + account + ":assumed-role/" + roleName + "/" + name,
		id:      "AROA" + strings.ToUpper(roleName) + ":" + name,
		role:    r.ARN,
		account: account,
		policy:  r.Policy,
	}
}

// caller returns who has an ARN, with the policy of now. One that is not known
// may do nothing.
func (a *AWS) caller(arn string) caller {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if user, ok := a.users[arn]; ok {
		return user
	}
	for _, r := range a.roles {
		if who := sessionOf(r, lastElement(arn)); who.arn == arn {
			return who
		}
	}
	return caller{arn: arn, account: accountOf(arn)}
}
