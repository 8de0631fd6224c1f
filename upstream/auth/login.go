package auth

import (
	"context"
	"os"
	"strings"
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
