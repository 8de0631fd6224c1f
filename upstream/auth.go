package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
)

// authorizer gives requests to one registry their credentials. It is safe for
// concurrent use.
type authorizer interface {
	// authorize sets the credentials, and returns what tells them apart from
	// later ones.
	authorize(ctx context.Context, req *http.Request, repository string) (used string, err error)
	// accepted notes an answer that shows the credentials to be good.
	accepted(used, repository string)
	// refused looks at an answer of 400, 401 or 403, and reports whether there
	// are now other credentials to try. It leaves the body readable.
	refused(ctx context.Context, resp *http.Response, used, repository string) (retry bool, err error)
}

// credentialsError is why there are no credentials to ask with. It does not
// unwrap: a password file that does not exist must not read as an image that
// does not exist.
type credentialsError struct {
	what  string
	cause error
}

func (e *credentialsError) Error() string {
	return explained(fmt.Sprintf("no usable credentials: %s: %s", e.what, oneLine(e.cause.Error())))
}

// DenialAttrs is as that of [Error].
func (e *credentialsError) DenialAttrs() []slog.Attr { return denialAttrs(e.cause.Error()) }

var errNoToken = errors.New("there is no token in it")

// challenge is one of the schemes in a WWW-Authenticate header, with its
// parameters (RFC 9110, 11.6.1).
type challenge struct {
	scheme string // lower case
	params map[string]string
}

// parseChallenge reads the first challenge of a known scheme. Registries send
// one.
func parseChallenge(h http.Header) (challenge, bool) {
	for _, v := range h.Values("WWW-Authenticate") {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(v), " ")
		scheme = strings.ToLower(scheme)
		if scheme == "bearer" || scheme == "basic" {
			return challenge{scheme, parseParams(rest)}, true
		}
	}
	return challenge{}, false
}

// parseParams reads key=token and key="quoted string" pairs. What it cannot
// read, it leaves out.
func parseParams(s string) map[string]string {
	params := make(map[string]string)
	for s != "" {
		key, rest, found := strings.Cut(s, "=")
		if !found {
			break
		}
		key = strings.ToLower(strings.Trim(key, " ,\t"))
		var value string
		if strings.HasPrefix(rest, `"`) {
			value, s = cutQuoted(rest[1:])
		} else {
			value, s, _ = strings.Cut(rest, ",")
		}
		if key != "" {
			params[key] = strings.TrimSpace(value)
		}
	}
	return params
}

// cutQuoted reads up to the closing quote, and undoes backslashes.
func cutQuoted(s string) (value, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}
