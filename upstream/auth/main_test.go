package auth_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/auth"
	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/reply"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pass lets time go by in a bubble.
func pass(d time.Duration) { <-time.After(d) }

// client asks a registry as package upstream does. The registry and its token
// service are one handler, which is called without a network.
type client struct {
	*auth.Challenged
	handler http.Handler
	log     *upstreamtest.Log
}

func newClient(logins auth.Logins, h http.HandlerFunc) *client {
	return newClientAt("https://registry.test", logins, h)
}

func newClientAt(endpoint string, logins auth.Logins, h http.HandlerFunc, realms ...string) *client {
	u, err := url.Parse(endpoint)
	if err != nil {
		panic(err)
	}
	c := &client{handler: h, log: new(upstreamtest.Log)}
	c.Challenged = auth.New(auth.Options{
		Endpoint:  u,
		Logins:    logins,
		Realms:    realms,
		Transport: c,
		Check:     guard.NewTransports(guard.Options{}).For(u),
		Timeout:   20 * time.Second,
		Log:       slog.New(slog.NewTextHandler(c.log, nil)),
	})
	return c
}

// RoundTrip is for http.RoundTripper.
func (c *client) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	req.Host, req.RequestURI = req.URL.Host, req.URL.RequestURI()
	c.handler.ServeHTTP(w, req)
	resp := w.Result()
	resp.Request = req
	return resp, nil
}

// pull asks for a blob of a repository. Its error is that of the authentication or
// the registry's answer.
func (c *client) pull(ctx context.Context, repository string) error {
	for again := false; ; again = true {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://registry.test/v2/"+repository+"/blobs/x", http.NoBody)
		if err != nil {
			return err
		}
		used, err := c.Authorize(ctx, req, repository)
		if err != nil {
			return err
		}
		resp, err := c.RoundTrip(req)
		if err != nil {
			return err
		}
		retry := false
		if auth.IsRefusal(resp) {
			if !again {
				retry, err = c.Refused(ctx, resp, used, repository)
			}
		} else {
			c.Accepted(used, repository)
		}
		switch {
		case err != nil:
			resp.Body.Close()
			return err
		case resp.StatusCode == http.StatusOK:
			return resp.Body.Close()
		case !retry:
			return reply.Read(resp)
		}
		resp.Body.Close()
	}
}

// requireBasic answers 401 to requests without this login.
func requireBasic(username, password string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != username || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next(w, r)
	}
}

func content(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("content")) }

func writeFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	rewriteFile(t, name, content)
	return name
}

func rewriteFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func basicAuth(username, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(username + ":" + password))
}

func wantPermission(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v, want %v", err, fs.ErrPermission)
	}
}
