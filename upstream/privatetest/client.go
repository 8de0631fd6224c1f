package privatetest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Get asks a mirror for a path as clients do: without a token, then for one, then with it. It returns
// the last status and body, or the length of a blob. An empty user asks anonymously.
func Get(t testing.TB, method, mirror, path, user, password string) (int, string) {
	t.Helper()
	got := Ask(t, Request{Method: method, URL: mirror + path, User: user, Password: password})
	if got.Err != nil {
		t.Errorf("%s %s: %v", method, path, got.Err)
	}
	return got.Status, got.Body
}

// Request is a request to a mirror.
type Request struct {
	Method, URL    string
	User, Password string // an empty user asks anonymously
	Range          string // a header; "" for none
}

// Reply is an answer to a client.
type Reply struct {
	Status int
	Header http.Header
	Body   string // or the length of a blob
	Err    error  // of a body that was cut
}

// Ask is Get for any request, which returns the whole answer.
func Ask(t testing.TB, r Request) Reply {
	t.Helper()
	send := func(authorization string) Reply { return do(t, r.Method, r.URL, authorization, r.Range) }
	first := send("")
	challenge := first.Header.Get("WWW-Authenticate")
	if first.Status != http.StatusUnauthorized || challenge == "" {
		return first
	}
	params := make(map[string]string)
	for _, part := range strings.Split(strings.TrimPrefix(challenge, "Bearer "), ",") {
		key, value, _ := strings.Cut(part, "=")
		params[key] = strings.Trim(value, `"`)
	}
	realm, err := url.Parse(params["realm"])
	if err != nil {
		t.Fatal(err)
	}
	query := realm.Query()
	for _, key := range []string{"service", "scope"} {
		if params[key] != "" {
			query.Set(key, params[key])
		}
	}
	realm.RawQuery = query.Encode()
	basic := ""
	if r.User != Anonymous {
		basic = "Basic " + base64.StdEncoding.EncodeToString([]byte(r.User+":"+r.Password))
	}
	token := do(t, http.MethodGet, realm.String(), basic, "")
	if token.Status != http.StatusOK {
		return token
	}
	var doc struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(token.Body), &doc); err != nil {
		t.Fatal(err)
	}
	return send("Bearer " + doc.Token)
}

func do(t testing.TB, method, target, authorization, ranges string) Reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json")
	for key, value := range map[string]string{"Authorization": authorization, "Range": ranges} {
		if value != "" {
			req.Header.Set(key, value)
		}
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: new(net.Dialer).DialContext}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	text := string(body)
	if resp.StatusCode < http.StatusMultipleChoices && !strings.Contains(resp.Header.Get("Content-Type"), "json") {
		text = fmt.Sprintf("%d bytes", len(body))
	}
	return Reply{resp.StatusCode, resp.Header, text, err}
}
