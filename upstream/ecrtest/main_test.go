package ecrtest_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long tests wait for what takes no time, so that they fail rather
// than hang.
const patience = time.Minute

// await waits until a channel is closed. It fails the test if that takes too long.
func await(t *testing.T, closed <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatalf("after %v: not %s", patience, what)
	}
}

// limited returns the context of the test with a deadline.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// client sends requests to a running server. It follows no redirects.
type client struct {
	t        *testing.T
	server   *ecrtest.Running
	http     *http.Client
	password string
}

// start returns a running server and a client with a token.
func start(t *testing.T, opts ecrtest.Options) (*ecrtest.Running, *client) {
	t.Helper()
	server, err := ecrtest.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, server)
	c.login()
	return server, c
}

// newClient returns a client without a token. It closes the server when the test
// ends.
func newClient(t *testing.T, server *ecrtest.Running) *client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			if err := server.Close(); err != nil {
				t.Error(err)
			}
		}()
		await(t, closed, "closed")
	})
	return &client{t: t, server: server, http: &http.Client{
		Timeout:       patience,
		Transport:     buffered{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// buffered is a transport that reads the bodies of requests into memory first. The
// SDK closes its bodies as soon as there is an answer. On loopback net/http may not
// have read them to the end by then, and would close the connection.
type buffered struct{ http.RoundTripper }

func (b buffered) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	return b.RoundTripper.RoundTrip(req)
}

// api returns a client of the AWS SDK.
func (c *client) api(accessKey, region string) *ecr.Client {
	return ecr.New(ecr.Options{
		BaseEndpoint:     aws.String(c.server.Endpoint),
		Region:           region,
		Credentials:      credentials.NewStaticCredentialsProvider(accessKey, "secret", ""),
		HTTPClient:       c.http,
		RetryMaxAttempts: 1,
	})
}

// login gets a new token for the client.
func (c *client) login() {
	c.t.Helper()
	out, err := c.api("AKIDLARDERTEST", "us-east-1").GetAuthorizationToken(c.t.Context(), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(*out.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		c.t.Fatal(err)
	}
	var ok bool
	if c.password, ok = strings.CutPrefix(string(raw), "AWS:"); !ok {
		c.t.Fatalf("the token %q is not for the user AWS", raw)
	}
}

// answer is a response with its body, as far as it could be read.
type answer struct {
	*http.Response
	body string
	err  error // of reading the body
}

// registry sends a request with the client's token. header is names and values in
// turn.
func (c *client) registry(method, path string, header ...string) answer {
	c.t.Helper()
	req := c.request(method, c.server.Endpoint+path, header...)
	req.SetBasicAuth("AWS", c.password)
	return c.do(req)
}

// get gets a URL, without the token.
func (c *client) get(url string, header ...string) answer {
	c.t.Helper()
	return c.do(c.request(http.MethodGet, url, header...))
}

func (c *client) request(method, url string, header ...string) *http.Request {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, url, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

func (c *client) do(req *http.Request) answer {
	c.t.Helper()
	a, err := c.try(req)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

func (c *client) try(req *http.Request) (answer, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp, string(body), err}, nil
}

// signedURL returns the URL that a blob redirects to.
func (c *client) signedURL(blob string) string {
	c.t.Helper()
	a := c.registry(http.MethodGet, blob)
	if a.StatusCode != http.StatusTemporaryRedirect {
		c.t.Fatalf("GET %s: %s: %s", blob, a.Status, a.body)
	}
	return a.Header.Get("Location")
}

// addBlob adds a blob to the repository team/app and returns its path.
func (c *client) addBlob(content ecrtest.Content) string {
	c.t.Helper()
	desc, err := c.server.AddBlob("team/app", content)
	if err != nil {
		c.t.Fatal(err)
	}
	return "/v2/team/app/blobs/" + desc.Digest.String()
}

func wantStatus(t *testing.T, a answer, status int) {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("%s %s: %s: %s; want status %d", a.Request.Method, a.Request.URL, a.Status, a.body, status)
	}
}

func wantHeader(t *testing.T, a answer, name, value string) {
	t.Helper()
	if got := a.Header.Get(name); got != value {
		t.Errorf("%s %s: %s: %q, want %q", a.Request.Method, a.Request.URL, name, got, value)
	}
}

func wantBody(t *testing.T, a answer, body string) {
	t.Helper()
	if a.err != nil {
		t.Fatalf("%s %s: %v", a.Request.Method, a.Request.URL, a.err)
	}
	if a.body != body {
		t.Errorf("%s %s: %d bytes %.200q, want %d bytes %.200q",
			a.Request.Method, a.Request.URL, len(a.body), a.body, len(body), body)
	}
}
