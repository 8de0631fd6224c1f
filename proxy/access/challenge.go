package access

import (
	"net/url"
	"strings"
)

// Service is the name by which Larder's tokens are asked for.
const Service = "larder"

// TokenPath is where clients ask for tokens.
const TokenPath = "/auth/token"

// Challenge is the answer to a client without a good token.
type Challenge struct {
	// Base is the URL of Larder as the client reached it, such as http://127.0.0.1:5000.
	Base string
	// Upstream is the host of the registry that the client wants something of; "" for none.
	Upstream string
	// Name is the repository as the client wrote it; "" for none.
	Name string
	// Error is invalid_token for a token that is not good, or insufficient_scope (RFC 6750,
	// 3.1); "" if there was no token.
	Error string
}

// The values of Challenge.Error.
const (
	InvalidToken      = "invalid_token"
	InsufficientScope = "insufficient_scope"
)

// String returns the value of the header WWW-Authenticate. It is Bearer: with a Basic challenge and
// no credentials containerd would not use the mirror.
func (c Challenge) String() string {
	realm := strings.TrimSuffix(c.Base, "/") + TokenPath
	if c.Upstream != "" {
		realm += "?" + url.Values{"ns": {c.Upstream}}.Encode()
	}
	header := `Bearer realm="` + quoted(realm) + `",service="` + Service + `"`
	if c.Name != "" {
		header += `,scope="` + quoted("repository:"+c.Name+":pull") + `"`
	}
	if c.Error != "" {
		header += `,error="` + c.Error + `"`
	}
	return header
}

// quoted escapes a text for a quoted string (RFC 9110, 5.6.4).
func quoted(s string) string { return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) }
