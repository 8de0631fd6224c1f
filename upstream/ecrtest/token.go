package ecrtest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
)

// claims is what a token says. It is bound to a region, not to an account, and
// gives the access of whom it was issued to.
type claims struct {
	Principal string `json:"principal"` // an ARN
	Region    string `json:"region"`
	Expires   int64  `json:"expiration"` // milliseconds since the Unix epoch
	Epoch     int64  `json:"epoch"`
	Serial    int64  `json:"serial"`
}

// Why a request is not let in.
var (
	errNoCredentials = errors.New("no credentials, or wrong ones")
	errUnreadable    = errors.New("the credentials are not ECR's")
	errTokenExpired  = errors.New("the token has expired")
)

// Kinds of tokens, of which none is good for another.
const (
	privatePassword = "ecr"
	publicPassword  = "ecr-public"
	bearerToken     = "bearer" // of ECR Public
)

// passwordKind is the kind of the tokens that the API gives.
func (s *Server) passwordKind() string {
	if s.opts.Public {
		return publicPassword
	}
	return privatePassword
}

// issueToken returns a new token of a caller's, the password of the user AWS,
// and when it expires.
func (s *Server) issueToken(who caller) (password string, expires time.Time) {
	s.tokens.Add(1)
	return s.issue(s.passwordKind(), who, s.opts.TokenTTL)
}

func (s *Server) issue(kind string, who caller, ttl time.Duration) (token string, expires time.Time) {
	expires = s.opts.Now().Add(ttl).Truncate(time.Millisecond)
	body, err := json.Marshal(claims{
		Principal: who.arn,
		Region:    s.opts.Region,
		Expires:   expires.UnixMilli(),
		Epoch:     s.region.tokenEpoch.Load(),
		Serial:    s.tokenSeq.Add(1),
	})
	if err != nil {
		panic("ecrtest: encoding a token: " + err.Error())
	}
	payload := base64.RawURLEncoding.EncodeToString(body)
	return payload + "." + s.signer.sign("token", kind, payload), expires
}

// authorize returns whose token a request has.
func (s *Server) authorize(r *http.Request) (caller, error) {
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Basic") {
		return caller{}, errNoCredentials
	}
	user, password, ok := r.BasicAuth()
	if !ok || user != "AWS" {
		return caller{}, errUnreadable
	}
	return s.readToken(s.passwordKind(), password)
}

// readToken returns whose a token is that must be of a kind.
func (s *Server) readToken(kind, token string) (caller, error) {
	payload, code, _ := strings.Cut(token, ".")
	body, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return caller{}, errUnreadable
	}
	var c claims
	if json.Unmarshal(body, &c) != nil {
		return caller{}, errUnreadable
	}
	if !s.signer.valid(code, "token", kind, payload) || c.Region != s.opts.Region {
		return caller{}, errNoCredentials
	}
	if c.Epoch < s.region.tokenEpoch.Load() || s.opts.Now().UnixMilli() >= c.Expires {
		return caller{}, errTokenExpired
	}
	if c.Principal == "" {
		return caller{}, nil // anonymous
	}
	return s.aws.caller(c.Principal), nil
}

// admit answers a request that authorize refuses, and else says in x whose it
// is.
func (s *Server) admit(x *exchange) bool {
	who, err := s.authorize(x.r)
	switch {
	case err == nil:
		x.caller = who
		return true
	case errors.Is(err, errUnreadable):
		x.reply(http.StatusBadRequest, "", nil)
	case errors.Is(err, errTokenExpired):
		x.fail(http.StatusForbidden, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
	default:
		x.Header().Set("Www-Authenticate", `Basic realm="https://`+s.Host()+`/",service="ecr.amazonaws.com"`)
		x.reply(http.StatusUnauthorized, "text/plain; charset=utf-8", []byte("Not Authorized\n"))
	}
	return false
}

// ExpireTokens makes every token issued so far in the region an expired one.
func (s *Server) ExpireTokens() { s.region.tokenEpoch.Add(1) }
