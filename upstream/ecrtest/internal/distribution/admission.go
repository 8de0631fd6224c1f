package distribution

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/registry"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/token"
)

// basicToken returns the principal of the token that a request has as the password
// of the user AWS. The errors are those of [token.Issuer.ReadPassword].
func basicToken(r *http.Request, tokens *token.Issuer) (principal string, err error) {
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", token.ErrInvalid
	}
	user, password, ok := r.BasicAuth()
	if !ok || user != "AWS" {
		return "", token.ErrUnreadable
	}
	return tokens.ReadPassword(password)
}

// bearerToken returns the principal of a request's bearer token, which is one of the
// token endpoint, or the API's token as the API gave it.
func bearerToken(r *http.Request, tokens *token.Issuer) (principal string, err error) {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", token.ErrInvalid
	}
	if raw, err := base64.StdEncoding.DecodeString(value); err == nil {
		if password, ok := strings.CutPrefix(string(raw), "AWS:"); ok {
			return tokens.ReadPassword(password)
		}
	}
	return tokens.ReadBearer(value)
}

// refusePrivate answers a request without a valid token as ECR does.
func refusePrivate(x *frontend.Exchange, err error, host string) {
	switch {
	case errors.Is(err, token.ErrUnreadable):
		x.Reply(http.StatusBadRequest, "", nil)
	case errors.Is(err, token.ErrExpired):
		fail(x, frontend.Error{Status: http.StatusForbidden, Code: "DENIED",
			Message: "Your authorization token has expired. Reauthenticate and try again."})
	default:
		x.Header().Set("Www-Authenticate", `Basic realm="https://`+host+`/",service="ecr.amazonaws.com"`)
		x.Reply(http.StatusUnauthorized, "text/plain; charset=utf-8", []byte("Not Authorized\n"))
	}
}

// refusePublic answers a request without a valid token as ECR Public does.
func refusePublic(x *frontend.Exchange, err error) {
	if !errors.Is(err, token.ErrInvalid) {
		fail(x, frontend.Error{Status: http.StatusBadRequest, Code: "DENIED", Message: "Your Authorization Token is invalid."})
		return
	}
	x.Header().Set("Www-Authenticate",
		`Bearer realm="`+scheme(x.Request)+"://"+x.Request.Host+`/token/",service="`+registry.PublicHost+`",scope="aws"`)
	fail(x, frontend.Error{Status: http.StatusUnauthorized, Code: "UNAUTHORIZED", Message: "Not Authorized"})
}

// scheme returns the scheme of a request's URL.
func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}
