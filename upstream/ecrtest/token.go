package ecrtest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
)

// claims is what a token says. It is bound to a region, not to an account.
type claims struct {
	Region  string `json:"region"`
	Expires int64  `json:"expiration"` // milliseconds since the Unix epoch
	Epoch   int64  `json:"epoch"`
	Serial  int64  `json:"serial"`
}

// Why a request is not let in.
var (
	errNoCredentials = errors.New("no credentials, or wrong ones")
	errUnreadable    = errors.New("the credentials are not ECR's")
	errTokenExpired  = errors.New("the token has expired")
)

// issueToken returns a new token, the password of the user AWS, and when it
// expires.
func (s *Server) issueToken() (password string, expires time.Time) {
	expires = s.opts.Now().Add(s.opts.TokenTTL).Truncate(time.Millisecond)
	body, err := json.Marshal(claims{
		Region:  s.opts.Region,
		Expires: expires.UnixMilli(),
		Epoch:   s.tokenEpoch.Load(),
		Serial:  s.tokenSeq.Add(1),
	})
	if err != nil {
		panic("ecrtest: encoding a token: " + err.Error())
	}
	s.tokens.Add(1)
	payload := base64.RawURLEncoding.EncodeToString(body)
	return payload + "." + s.signer.sign("token", payload), expires
}

// authorize returns nil for a request with a token that is good.
func (s *Server) authorize(r *http.Request) error {
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Basic") {
		return errNoCredentials
	}
	user, password, ok := r.BasicAuth()
	if !ok || user != "AWS" {
		return errUnreadable
	}
	payload, code, _ := strings.Cut(password, ".")
	body, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return errUnreadable
	}
	var c claims
	if json.Unmarshal(body, &c) != nil {
		return errUnreadable
	}
	if !s.signer.valid(code, "token", payload) || c.Region != s.opts.Region {
		return errNoCredentials
	}
	if c.Epoch < s.tokenEpoch.Load() || s.opts.Now().UnixMilli() >= c.Expires {
		return errTokenExpired
	}
	return nil
}

// admit answers a request that authorize refuses, and tells whether it was let
// in.
func (s *Server) admit(x *exchange) bool {
	switch err := s.authorize(x.r); {
	case err == nil:
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

// ExpireTokens makes every token issued so far an expired one.
func (s *Server) ExpireTokens() { s.tokenEpoch.Add(1) }
