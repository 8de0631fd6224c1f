package auth

import (
	"context"
	"os"
	"strings"
	"time"
)

// Login is what a registry or its token service accepts: a user name and
// password, or one of the tokens. The zero value is an anonymous login.
type Login struct {
	Username, Password string
	Refresh            string // an OAuth2 refresh token, for the token service
	Bearer             string // a token for the registry itself
}

// Logins finds the login for one upstream. It is safe for concurrent use.
type Logins interface {
	// Login returns the zero value if there is none.
	Login(ctx context.Context) (Login, error)
	// Refused is told of a login that was refused, and reports whether Login may now
	// return another one.
	Refused(l Login) bool
	// From says for humans where the login is from.
	From() string
}

// Password is a user name with a password from a file, which is read at each use.
// The zero value is an anonymous login.
type Password struct {
	Username, File string
}

// Login is for [Logins].
func (p Password) Login(context.Context) (Login, error) {
	if p.Username == "" {
		return Login{}, nil
	}
	raw, err := os.ReadFile(p.File)
	if err != nil {
		return Login{}, NewError("read the password", err)
	}
	return Login{Username: p.Username, Password: strings.TrimRight(string(raw), "\r\n")}, nil
}

// Refused is for [Logins].
func (Password) Refused(Login) bool { return false }

// From is for [Logins].
func (p Password) From() string { return p.File }

// Given is a login that does not change.
type Given Login

// Login is for [Logins].
func (g Given) Login(context.Context) (Login, error) { return Login(g), nil }

// Refused is for [Logins].
func (Given) Refused(Login) bool { return false }

// From is for [Logins].
func (Given) From() string { return "" }

type loginKey struct{}

type asLogin struct {
	Login
	since time.Time
}

// As returns a context for what is asked with a client's own login in place of the upstream's
// configured one, and with no token that a token service issued before since: it may have rights
// that the login has lost, or lack new ones. The zero value of l asks anonymously.
func As(ctx context.Context, l Login, since time.Time) context.Context {
	return context.WithValue(ctx, loginKey{}, asLogin{l, since})
}

// Of returns the login that [As] has set, and false if it has not.
func Of(ctx context.Context) (Login, bool) {
	l, ok := ctx.Value(loginKey{}).(asLogin)
	return l.Login, ok
}

// sinceOf returns the time that [As] has set, and the zero time if it has not.
func sinceOf(ctx context.Context) time.Time {
	l, _ := ctx.Value(loginKey{}).(asLogin)
	return l.since
}
