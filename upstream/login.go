package upstream

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// login is what a registry or its token service lets somebody in by: a user
// name and password, or one of the others. The zero value is anybody.
type login struct {
	username, password string
	refresh            string // an OAuth2 refresh token, for the token service
	bearer             string // a token for the registry itself
}

// logins finds the login for one upstream. It is safe for concurrent use.
type logins interface {
	// login returns the zero value where there is none.
	login(ctx context.Context) (login, error)
	// refused hears that a login is no good, and reports whether there may be
	// another now.
	refused(l login) bool
	// from says for humans where the login is from.
	from() string
}

// secret is a user name with a password from a file, read at each use. The zero
// value is no login.
type secret struct {
	username, passwordFile string
}

func (s secret) login(context.Context) (login, error) {
	if s.username == "" {
		return login{}, nil
	}
	raw, err := os.ReadFile(s.passwordFile)
	if err != nil {
		return login{}, &credentialsError{"read the password", err}
	}
	return login{username: s.username, password: strings.TrimRight(string(raw), "\r\n")}, nil
}

func (secret) refused(login) bool { return false }
func (s secret) from() string     { return s.passwordFile }

// tokenRequest asks a token service: by GET with basic authentication or none,
// or for a refresh token by POST (distribution's "Token Authentication" and
// "OAuth2 Token Authentication" pages).
func tokenRequest(ctx context.Context, service *url.URL, params url.Values, l login) (*http.Request, error) {
	if l.refresh == "" {
		u := *service
		q := u.Query()
		for key := range params {
			q.Set(key, params.Get(key))
		}
		u.RawQuery = q.Encode()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err == nil && l.username != "" {
			req.SetBasicAuth(l.username, l.password) // RFC 7617
		}
		return req, err
	}
	params.Set("grant_type", "refresh_token")
	params.Set("client_id", "larder")
	params.Set("refresh_token", l.refresh)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, service.String(), strings.NewReader(params.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}
