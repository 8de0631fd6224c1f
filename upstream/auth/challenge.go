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

// The schemes that are known.
const (
	schemeBasic  = "basic"
	schemeBearer = "bearer"
)

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

// parseChallenges reads the challenges of known schemes, in their order. An answer
// may have several headers, and each of them several challenges. It leaves out what
// it cannot read.
func parseChallenges(h http.Header) []challenge {
	var all []challenge
	for _, line := range h.Values("WWW-Authenticate") {
		all = append(all, parseChallengeLine(line)...)
	}
	known := all[:0]
	for _, c := range all {
		if isKnown(c.scheme) {
			known = append(known, c)
		}
	}
	return known
}

func isKnown(scheme string) bool { return scheme == schemeBasic || scheme == schemeBearer }

// parseChallengeLine reads a list whose items are a scheme, a scheme with its first
// parameter, or one more parameter of the scheme before it.
func parseChallengeLine(line string) []challenge {
	var all []challenge
	for line != "" {
		line = strings.TrimLeft(line, " ,\t")
		// A scheme is a word that no equals sign follows. Some servers put one, without
		// a name before it, after the space.
		end := strings.IndexAny(line, " ,=\t")
		if end < 0 {
			end = len(line)
		}
		word, rest := line[:end], strings.TrimLeft(line[end:], " \t")
		if scheme := strings.ToLower(word); !strings.HasPrefix(rest, "=") || isKnown(scheme) && line[end] != '=' {
			if word != "" {
				all = append(all, challenge{scheme, make(map[string]string)})
			}
			line = rest
			continue
		}
		var value string
		if rest = strings.TrimLeft(rest[1:], " \t"); strings.HasPrefix(rest, `"`) {
			value, line = cutQuoted(rest[1:])
		} else {
			value, line, _ = strings.Cut(rest, ",")
		}
		if word != "" && len(all) > 0 {
			all[len(all)-1].params[strings.ToLower(word)] = strings.TrimSpace(value)
		}
	}
	return all
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
