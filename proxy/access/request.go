package access

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

const (
	// maxScopes bounds the repositories of one token.
	maxScopes = 32
	// maxUser bounds a user name, in bytes: it is remembered with each decision.
	maxUser = 256
	// maxCredential bounds a user name and a password, in bytes. ECR's passwords have some
	// 2,500.
	maxCredential = 16 << 10
)

// Errors of requests.
var (
	// ErrHeaders is that a request has more than one Authorization header.
	ErrHeaders = errors.New("the request has several Authorization headers")
	// ErrGrant is that a request for a token has a form that is not known.
	ErrGrant = errors.New("expected grant_type to be password or refresh_token")
	// ErrTooLong is that a request for a token is longer than any client's.
	ErrTooLong = fmt.Errorf("the request has more than %d scopes, a user name of more than %d bytes, or a credential of more than %d", maxScopes, maxUser, maxCredential)
)

// Request is a client's request for a token.
type Request struct {
	// Upstream is the host that the realm of the challenge has named; "" if it named none.
	Upstream string
	// Names are the repositories of the scopes, as the client wrote them.
	Names []string
	// Credential is that of the client.
	Credential Credential
}

// ParseRequest reads a request for a token: a GET with or without basic authentication, or a POST
// of a form (Docker's pages "Token Authentication" and "OAuth2 Token Authentication"). Scopes of
// other resources than repositories are left out. The caller has bounded the body.
func ParseRequest(r *http.Request) (Request, error) {
	if len(r.Header["Authorization"]) > 1 {
		return Request{}, ErrHeaders
	}
	if err := r.ParseForm(); err != nil {
		return Request{}, fmt.Errorf("%w: the form cannot be read", ErrGrant) // the error may quote it
	}
	req := Request{Upstream: r.URL.Query().Get("ns")}
	for _, scopes := range r.Form["scope"] {
		for scope := range strings.FieldsSeq(scopes) {
			if name, ok := repositoryOf(scope); ok {
				req.Names = append(req.Names, name)
			}
		}
	}
	if user, password, ok := r.BasicAuth(); ok {
		req.Credential = Password(user, password)
	}
	if r.Method == http.MethodPost {
		switch r.PostForm.Get("grant_type") {
		case "password":
			req.Credential = Password(r.PostForm.Get("username"), r.PostForm.Get("password"))
		case "refresh_token":
			req.Credential = IdentityToken(r.PostForm.Get("refresh_token"))
		default:
			return Request{}, ErrGrant
		}
	}
	if len(req.Names) > maxScopes || len(req.Credential.user) > maxUser || len(req.Credential.user)+len(req.Credential.secret) > maxCredential {
		return Request{}, ErrTooLong
	}
	return req, nil
}

// repositoryOf returns the repository of a scope repository:<name>:<actions>. A name may have
// the port of a host in it. Only a scope to pull is one.
func repositoryOf(scope string) (string, bool) {
	rest, ok := strings.CutPrefix(scope, "repository:")
	end := strings.LastIndexByte(rest, ':')
	if !ok || end < 0 {
		return "", false
	}
	for action := range strings.SplitSeq(rest[end+1:], ",") {
		if action == "pull" || action == "*" {
			return rest[:end], true
		}
	}
	return "", false
}

// Bearer returns the token of a request, and "" if it has none. Other schemes are no token.
func Bearer(h http.Header) (string, error) {
	all := h["Authorization"]
	switch len(all) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", ErrHeaders
	}
	scheme, token, _ := strings.Cut(all[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	return strings.TrimSpace(token), nil
}
