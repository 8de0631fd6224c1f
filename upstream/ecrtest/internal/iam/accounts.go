package iam

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Errors of [Accounts.Authenticate].
var (
	ErrUnknownKey = errors.New("the access key or its session token is unknown")
	ErrExpiredKey = errors.New("the session of the access key has expired")
)

// Accounts holds the users, roles and sessions of all accounts. Its methods may be
// called by several goroutines at once.
type Accounts struct {
	now func() time.Time

	mu           sync.RWMutex         // guards the fields below
	users        map[string]Principal // by ARN
	roles        map[string]*Role     // by ARN; a role is never changed, only replaced
	keys         map[string]owner     // by access key
	containers   map[string]string    // ARNs of roles, by the authorization of a container
	instanceRole string               // ARN of the role of the instance; empty if it has none
	issued       int                  // keys issued so far; makes keys differ
}

// owner is the user or session that an access key belongs to.
type owner struct {
	arn          string
	sessionToken string    // required with the key, unless empty
	expires      time.Time // never, if zero
}

// NewAccounts returns accounts without users and roles. now is the clock of
// sessions.
func NewAccounts(now func() time.Time) *Accounts {
	return &Accounts{
		now:        now,
		users:      make(map[string]Principal),
		roles:      make(map[string]*Role),
		keys:       make(map[string]owner),
		containers: make(map[string]string),
	}
}

// AddUser adds an IAM user, or replaces its policy, and returns a new access key of
// the user. arn is like arn:aws:iam::123456789012:user/ci.
func (a *Accounts) AddUser(arn string, policy Policy) Key {
	a.mu.Lock()
	a.issued++
	id := fmt.Sprintf("AKIDLARDER%06d", a.issued)
	a.mu.Unlock()
	return a.AddUserKey(arn, policy, id)
}

// AddUserKey is AddUser with a given access key ID.
func (a *Accounts) AddUserKey(arn string, policy Policy, accessKeyID string) Key {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.users[arn] = newUser(arn, policy)
	a.keys[accessKeyID] = owner{arn: arn}
	return Key{AccessKeyID: accessKeyID, SecretAccessKey: secretAccessKey}
}

// secretAccessKey is the secret of every key. Signatures are not checked.
const secretAccessKey = "secret"

// AddRole adds an IAM role, or replaces it. Running sessions get the new policy.
func (a *Accounts) AddRole(r Role) {
	r.Policy, r.Trusts = slices.Clone(r.Policy), slices.Clone(r.Trusts)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.roles[r.ARN] = &r
}

// Role returns the role of an ARN, or nil if there is none. The caller does not
// change it.
func (a *Accounts) Role(arn string) *Role {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.roles[arn]
}

// Assume begins a session of a role without asking for permission, and returns its
// credentials. The error is [fs.ErrNotExist] if there is no such role.
func (a *Accounts) Assume(role, session string) (Key, error) {
	r := a.Role(role)
	if r == nil {
		return Key{}, fmt.Errorf("assuming the role %s: %w", role, fs.ErrNotExist)
	}
	k, _ := a.Begin(r, session, 0)
	return k, nil
}

// Begin begins a session of a role, which lasts d, or as long as the role says if d
// is 0.
func (a *Accounts) Begin(r *Role, name string, d time.Duration) (Key, Principal) {
	// STS answers with dates in whole seconds.
	expires := a.now().Add(r.duration(d)).Truncate(time.Second)
	p := r.session(name)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.issued++
	k := Key{
		AccessKeyID:     fmt.Sprintf("ASIALARDER%06d", a.issued),
		SecretAccessKey: secretAccessKey,
		SessionToken:    fmt.Sprintf("session-%06d", a.issued),
		Expires:         expires,
	}
	a.keys[k.AccessKeyID] = owner{arn: p.ARN, sessionToken: k.SessionToken, expires: k.Expires}
	return k, p
}

// Authenticate returns the ARN of the user or session that an access key belongs
// to. sessionToken is the token that came with the key, or "". The error is
// [ErrUnknownKey] or [ErrExpiredKey].
func (a *Accounts) Authenticate(accessKeyID, sessionToken string) (arn string, err error) {
	now := a.now()
	a.mu.RLock()
	defer a.mu.RUnlock()
	o, ok := a.keys[accessKeyID]
	switch {
	case !ok || o.sessionToken != sessionToken:
		return "", ErrUnknownKey
	case !o.expires.IsZero() && !now.Before(o.expires):
		return "", ErrExpiredKey
	default:
		return o.arn, nil
	}
}

// Principal returns the user or session of an ARN with its policy of this moment.
// An unknown one has no permissions.
func (a *Accounts) Principal(arn string) Principal {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if user, ok := a.users[arn]; ok {
		return user
	}
	for _, r := range a.roles {
		if p := r.session(nameIn(arn)); p.ARN == arn {
			return p
		}
	}
	return Principal{ARN: arn, Account: AccountOf(arn)}
}

// AuthorizeContainer returns an authorization that [Accounts.ContainerRole] accepts
// for the role. The error is [fs.ErrNotExist] if there is no such role.
func (a *Accounts) AuthorizeContainer(role string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.roles[role] == nil {
		return "", fmt.Errorf("giving a container the role %s: %w", role, fs.ErrNotExist)
	}
	authorization := uuid.NewString()
	a.containers[authorization] = role
	return authorization, nil
}

// ContainerRole returns the role of the container with an authorization, or nil.
func (a *Accounts) ContainerRole(authorization string) *Role {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.roles[a.containers[authorization]]
}

// SetInstanceRole gives the instance a role; "" takes it away. The error is
// [fs.ErrNotExist] if there is no such role.
func (a *Accounts) SetInstanceRole(role string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if role != "" && a.roles[role] == nil {
		return fmt.Errorf("giving the instance the role %s: %w", role, fs.ErrNotExist)
	}
	a.instanceRole = role
	return nil
}

// InstanceRole returns the role of the instance, or nil.
func (a *Accounts) InstanceRole() *Role {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.roles[a.instanceRole]
}
