// Package token issues and reads the tokens of the fake ECR: the passwords that the
// ECR API hands out, and the bearer tokens of ECR Public.
package token

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/secret"
)

// Errors of reading a token.
var (
	ErrInvalid    = errors.New("the token was not issued here, or for another region")
	ErrUnreadable = errors.New("the token does not have the form of ECR's")
	ErrExpired    = errors.New("the token has expired")
)

// The kinds of tokens. A token of one kind is not valid as another.
const (
	privatePassword = "ecr"
	publicPassword  = "ecr-public"
	bearer          = "bearer" // of ECR Public
)

// Epoch lets the tokens of all issuers of a region expire together.
type Epoch struct{ n atomic.Int64 }

// Expire makes every token that was issued so far an expired one.
func (e *Epoch) Expire() { e.n.Add(1) }

// Options describes an [Issuer].
type Options struct {
	Region string
	Public bool // the passwords are those of ECR Public

	Key         secret.Key
	PasswordTTL time.Duration
	BearerTTL   time.Duration
	Now         func() time.Time
	Epoch       *Epoch // of the region
}

// Issuer issues the tokens of one registry, and reads those of all registries of its
// region with the same key. Its methods may be called by several goroutines at once.
type Issuer struct {
	opts         Options
	passwordKind string
	passwords    atomic.Int64 // issued since the last reset
	serial       atomic.Int64 // makes tokens differ
}

// NewIssuer returns an issuer.
func NewIssuer(opts Options) *Issuer {
	i := &Issuer{opts: opts, passwordKind: privatePassword}
	if opts.Public {
		i.passwordKind = publicPassword
	}
	return i
}

// claims is the content of a token. A token belongs to a region, not to an account,
// and gives the access of its principal.
type claims struct {
	Principal string `json:"principal"` // an ARN; empty for an anonymous one
	Region    string `json:"region"`
	Expires   int64  `json:"expiration"` // milliseconds since the Unix epoch
	Epoch     int64  `json:"epoch"`
	Serial    int64  `json:"serial"`
}

// Password returns a new token of a principal, which is the password of the user
// AWS, and when it expires.
func (i *Issuer) Password(principal string) (password string, expires time.Time) {
	i.passwords.Add(1)
	return i.issue(i.passwordKind, principal, i.opts.PasswordTTL)
}

// Bearer returns a new bearer token of a principal, or of anyone if principal is
// empty.
func (i *Issuer) Bearer(principal string) string {
	token, _ := i.issue(bearer, principal, i.opts.BearerTTL)
	return token
}

func (i *Issuer) issue(kind, principal string, ttl time.Duration) (token string, expires time.Time) {
	expires = i.opts.Now().Add(ttl).Truncate(time.Millisecond)
	body, err := json.Marshal(claims{
		Principal: principal,
		Region:    i.opts.Region,
		Expires:   expires.UnixMilli(),
		Epoch:     i.opts.Epoch.n.Load(),
		Serial:    i.serial.Add(1),
	})
	if err != nil {
		panic("ecrtest: encoding a token: " + err.Error())
	}
	payload := base64.RawURLEncoding.EncodeToString(body)
	return payload + "." + i.opts.Key.Sign("token", kind, payload), expires
}

// ReadPassword returns the principal of a password. The error is [ErrUnreadable],
// [ErrInvalid] or [ErrExpired].
func (i *Issuer) ReadPassword(password string) (principal string, err error) {
	return i.read(i.passwordKind, password)
}

// ReadBearer returns the principal of a bearer token, "" for an anonymous one. The
// errors are those of [Issuer.ReadPassword].
func (i *Issuer) ReadBearer(token string) (principal string, err error) { return i.read(bearer, token) }

func (i *Issuer) read(kind, token string) (principal string, err error) {
	payload, code, _ := strings.Cut(token, ".")
	body, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return "", ErrUnreadable
	}
	var c claims
	if json.Unmarshal(body, &c) != nil {
		return "", ErrUnreadable
	}
	if !i.opts.Key.Valid(code, "token", kind, payload) || c.Region != i.opts.Region {
		return "", ErrInvalid
	}
	if c.Epoch < i.opts.Epoch.n.Load() || i.opts.Now().UnixMilli() >= c.Expires {
		return "", ErrExpired
	}
	return c.Principal, nil
}

// Passwords returns how many passwords were issued since the last reset.
func (i *Issuer) Passwords() int { return int(i.passwords.Load()) }

// ResetCount sets the count of [Issuer.Passwords] to zero.
func (i *Issuer) ResetCount() { i.passwords.Store(0) }
