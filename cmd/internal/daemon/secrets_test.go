package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// loudRegistry wants a login, and then repeats it, and a URL that it has signed.
func loudRegistry(w http.ResponseWriter, r *http.Request) {
	_, password, ok := r.BasicAuth()
	switch {
	case !ok:
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	case strings.Contains(r.URL.Path, "/blobs/"):
		w.Header().Set("Location", "https://s3.test:port/?X-Amz-Signature=51gned")
		w.WriteHeader(http.StatusTemporaryRedirect)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"%s with %s, see https://s3.test/?X-Amz-Signature=51gned"}]}`,
			r.Header.Get("Authorization"), password)
	}
}

// brokenRegistry answers with a header line that net/http cannot read, and quotes.
func brokenRegistry(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("HTTP/1.1 307 Temporary Redirect\r\nLocation /x?X-Amz-Signature=51gned\r\n\r\n"))
}

// An upstream repeats what it was sent, another one's answer is quoted, and the credential helper of a third one writes
// its login and fails.
func TestNoSecretReachesClientsTheLogThePageOrTraces(t *testing.T) {
	loud, broken := httptest.NewServer(http.HandlerFunc(loudRegistry)), httptest.NewServer(http.HandlerFunc(brokenRegistry))
	t.Cleanup(loud.Close)
	t.Cleanup(broken.Close)
	dir := t.TempDir()
	for file, content := range map[string]string{
		"docker-credential-larder-test": "#!/bin/sh\necho '{\"Username\":\"me\",\"Secret\":\"hunter2\"}'\nexit 1\n",
		"config.json":                   `{"credsStore":"larder-test"}`,
		"password":                      "hunter2",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	collector := newCollector(t)
	s, stop := serveInside(t, fmt.Sprintf(`  - {host: loud.example.com, endpoint: %q, auth: {username: me, password_file: %q}}
  - {host: helped.example.com, endpoint: %q, auth: {docker_config: %q}}
  - {host: broken.example.com, endpoint: %q}
telemetry: {otlp_endpoint: %q, sample_ratio: 1}
log: {level: debug}
`, loud.URL, filepath.Join(dir, "password"), loud.URL, filepath.Join(dir, "config.json"), broken.URL, collector.URL))

	var shown strings.Builder
	read := func(client *http.Client, url string) {
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if isError := resp.StatusCode >= http.StatusBadRequest; isError != strings.Contains(url, "/v2/") {
			t.Errorf("%s: %s", url, resp.Status)
		}
		if err := resp.Header.Write(&shown); err != nil {
			t.Error(err)
		}
		if _, err := io.Copy(&shown, resp.Body); err != nil {
			t.Error(err)
		}
	}
	dgst := digest.FromString("a layer").String()
	for _, host := range []string{"loud", "helped", "broken"} {
		for _, path := range []string{"manifests/v1", "manifests/" + dgst, "blobs/" + dgst, "tags/list", "referrers/" + dgst} {
			read(s.client, "http://"+s.listen+"/v2/team/app/"+path+"?ns="+host+".example.com")
		}
	}
	for _, path := range []string{"/", "/metrics", "/readyz"} {
		read(s.client, "http://"+s.admin+path)
	}
	commands := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return Dial(ctx, s.cacheDir) }}
	defer commands.CloseIdleConnections()
	before := shown.Len()
	for _, path := range []string{"/api/v1/stats", "/api/v1/activity"} {
		read(&http.Client{Transport: commands}, "http://larder"+path)
	}
	if state := shown.String()[before:]; !strings.Contains(state, "[redacted]") { // the page shows the same state
		t.Errorf("the state has no error of an upstream:\n%s", state)
	}
	stop() // sends the traces
	shown.WriteString(s.log.String())
	collector.mu.Lock()
	defer collector.mu.Unlock()
	if len(collector.spans) == 0 {
		t.Error("there are no traces")
	}
	for _, span := range collector.spans {
		shown.WriteString(span.String())
	}
	for _, left := range []string{"[redacted]", "exit status 1", "malformed MIME header"} {
		if !strings.Contains(shown.String(), left) {
			t.Errorf("no error says %q:\n%s", left, s.log)
		}
	}
	for _, secret := range []string{"hunter2", "bWU6aHVudGVyMg==", "51gned"} {
		if i := strings.Index(shown.String(), secret); i >= 0 {
			t.Errorf("%s is shown: …%s", secret, shown.String()[max(0, i-300):i+len(secret)])
		}
	}
}
