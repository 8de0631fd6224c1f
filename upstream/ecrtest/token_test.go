package ecrtest_test

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

const expiredBody = `{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`

func TestInvalidCredentialsAreChallenged(t *testing.T) {
	_, c := start(t, ecrtest.Options{})
	_, foreign := start(t, ecrtest.Options{SecretKey: "another"})
	requests := map[string]*http.Request{
		"none":    c.request(http.MethodGet, c.server.Endpoint+"/v2/"),
		"bearer":  c.request(http.MethodGet, c.server.Endpoint+"/v2/", "Authorization", "Bearer abc"),
		"foreign": c.request(http.MethodGet, c.server.Endpoint+"/v2/"),
	}
	requests["foreign"].SetBasicAuth("AWS", foreign.password)
	for name, req := range requests {
		t.Run(name, func(t *testing.T) {
			a := c.do(req)
			wantStatus(t, a, http.StatusUnauthorized)
			wantHeader(t, a, "Www-Authenticate",
				`Basic realm="https://123456789012.dkr.ecr.us-east-1.amazonaws.com/",service="ecr.amazonaws.com"`)
			wantHeader(t, a, "Docker-Distribution-Api-Version", "registry/2.0")
			wantHeader(t, a, "Content-Type", "text/plain; charset=utf-8")
			wantBody(t, a, "Not Authorized\n")
		})
	}
}

func TestUnreadableCredentialsAreABadRequest(t *testing.T) {
	_, c := start(t, ecrtest.Options{})
	basic := func(user, password string) string {
		req := c.request(http.MethodGet, c.server.Endpoint)
		req.SetBasicAuth(user, password)
		return req.Header.Get("Authorization")
	}
	for name, authorization := range map[string]string{
		"not base64":     "Basic !",
		"another user":   basic("me", c.password),
		"not a token":    basic("AWS", "hunter2"),
		"cut":            basic("AWS", c.password[:20]),
		"empty password": basic("AWS", ""),
	} {
		t.Run(name, func(t *testing.T) {
			a := c.get(c.server.Endpoint+"/v2/", "Authorization", authorization)
			wantStatus(t, a, http.StatusBadRequest)
			wantHeader(t, a, "Www-Authenticate", "")
		})
	}
}

func TestTokenIsValidUntilItExpires(t *testing.T) {
	clock := ecrtest.NewClock()
	_, c := start(t, ecrtest.Options{Now: clock.Now, TokenTTL: time.Hour})
	clock.Advance(time.Hour - time.Millisecond)
	wantStatus(t, c.registry(http.MethodGet, "/v2/"), http.StatusOK)
	clock.Advance(time.Millisecond)
	wantExpired(t, c)
	c.login()
	wantStatus(t, c.registry(http.MethodGet, "/v2/"), http.StatusOK)
}

func TestExpireTokensExpiresIssuedTokens(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	server.ExpireTokens()
	wantExpired(t, c)
	c.login()
	wantStatus(t, c.registry(http.MethodGet, "/v2/"), http.StatusOK)
}

// wantExpired checks that the answers are those of ECR to an expired token: no
// challenge, and to a HEAD nothing but the status.
func wantExpired(t *testing.T, c *client) {
	t.Helper()
	a := c.registry(http.MethodGet, "/v2/team/app/manifests/latest")
	wantStatus(t, a, http.StatusForbidden)
	wantHeader(t, a, "Www-Authenticate", "")
	wantBody(t, a, expiredBody)
	a = c.registry(http.MethodHead, "/v2/team/app/manifests/latest")
	wantStatus(t, a, http.StatusForbidden)
	wantHeader(t, a, "Content-Length", strconv.Itoa(len(expiredBody)))
	wantBody(t, a, "")
}
