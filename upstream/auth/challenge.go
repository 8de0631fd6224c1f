package auth

import (
	"net/http"
	"strings"
)

// IsRefusal reports an answer that may be about the credentials.
func IsRefusal(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusBadRequest:
		return true
	}
	return false
}

// challenge is one of the schemes in a WWW-Authenticate header, with its
// parameters (RFC 9110, 11.6.1).
type challenge struct {
	scheme string // lower case
	params map[string]string
}

// scopeECRPublic is the one scope of ECR Public's tokens, for all of its
// repositories.
const scopeECRPublic = "aws"

// scope returns the scope of a token for pulls from a repository, or "" if the
// token is only to log in.
func (c challenge) scope(repository string) string {
	if c.params["scope"] == scopeECRPublic {
		return scopeECRPublic
	}
	if repository == "" {
		return ""
	}
	return "repository:" + repository + ":pull"
}

// parseChallenge reads the first challenge of a known scheme.
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

// parseParams reads key=token and key="quoted string" pairs. It leaves out what
// it cannot read.
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
