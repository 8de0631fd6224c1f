package access

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
)

// Credential is what a client has for an upstream: a user name and a password, or an identity
// token. The zero value is that of a client that has neither. It is comparable.
type Credential struct {
	user, secret string
	identity     bool
}

// Password returns the credential of a user.
func Password(user, password string) Credential { return Credential{user: user, secret: password} }

// IdentityToken returns a credential that a token service takes as a refresh token (Docker's page
// "OAuth2 Token Authentication").
func IdentityToken(token string) Credential { return Credential{secret: token, identity: true} }

// User returns the name of the user; "" if there is none.
func (c Credential) User() string { return c.user }

// Login returns the secret parts, which must go nowhere but to the upstream.
func (c Credential) Login() (user, password, identityToken string) {
	if c.identity {
		return "", "", c.secret
	}
	return c.user, c.secret, ""
}

// Format is for fmt. No verb shows the secret.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.shown()) }

// LogValue is for slog. It does not show the secret.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.shown()) }

func (c Credential) shown() string {
	switch {
	case c == Credential{}:
		return "anonymous"
	case c.identity:
		return "an identity token"
	}
	return fmt.Sprintf("user %q", c.user)
}

// Hash stands for a credential at one upstream, where the credential must not be.
type Hash [sha256.Size]byte

// String returns the hash in hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// hash returns the keyed hash of a credential for an upstream. The same credential has another
// hash for another upstream.
func (k Key) hash(upstream string, c Credential) (h Hash) {
	mac := hmac.New(sha256.New, k[:])
	for _, part := range []string{upstream, fmt.Sprint(c.identity), c.user, c.secret} {
		_ = binary.Write(mac, binary.BigEndian, uint64(len(part))) // a hash takes everything
		_, _ = io.WriteString(mac, part)
	}
	mac.Sum(h[:0])
	return h
}
