package daemon

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// usersFile writes a file with one user, and returns its hash too.
func usersFile(t *testing.T, user, password string) (path, hash string) {
	t.Helper()
	raw, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte(user+":"+string(raw)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, string(raw)
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestClientsNeedThePasswordOfAUser(t *testing.T) {
	users, hash := usersFile(t, "alice", "hunter2")
	s, stop := serveInside(t, fmt.Sprintf("auth: {htpasswd: %q}\nlog: {level: debug}\n", users))
	image := s.addImage(t, "team/app", 100_000)
	right := basic("alice", "hunter2")
	s.pull(t, "team/app", image, "Authorization", right)
	var shown strings.Builder
	for _, path := range []string{
		"/v2/", "/v2/team/app/manifests/v1", "/v2/team/app/manifests/none", "/v2/team/app/blobs/" + image.Blobs[0].Digest.String(),
		"/v2/team/app/tags/list", "/v2/none/tags/list", "/v2/team/app/referrers/" + image.Blobs[0].Digest.String(), "/elsewhere",
	} {
		var bodies []string
		for _, header := range [][]string{nil, {"Authorization", basic("alice", "pa55word")}, {"Authorization", basic("mallory", "hunter2")}} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.listen+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(header); i += 2 {
				req.Header.Set(header[i], header[i+1])
			}
			resp, err := s.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close() // it was read
			if err != nil || resp.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Basic ") ||
				resp.Header.Get("Docker-Content-Digest") != "" || !strings.Contains(string(body), "UNAUTHORIZED") {
				t.Errorf("%s with %q: %s %v %s", path, header, resp.Status, resp.Header, body)
			}
			shown.Write(body)
			bodies = append(bodies, string(body))
		}
		if bodies[1] != bodies[2] && !strings.Contains(bodies[1]+bodies[2], "too many") {
			t.Errorf("%s tells a user from others: %s %s", path, bodies[1], bodies[2])
		}
	}
	if status, _ := s.status(t, s.listen, "/v2/", "evil.example"); status != http.StatusMisdirectedRequest {
		t.Errorf("a web page: %d, want 421 and no question for a password", status)
	}
	if status, _ := s.status(t, s.listen, "/v2/", s.listen, "Authorization", right); status != http.StatusOK {
		t.Errorf("a right pair after wrong ones: %d", status)
	}
	all := s.metrics(t)
	if n := value(all, "larder_password_checks_total", "result", "right"); n != 1 {
		t.Errorf("bcrypt ran %v times for one right pair", n)
	}
	if n := value(all, "larder_password_checks_total", "result", "wrong"); n < 2 || n > 11 {
		t.Errorf("bcrypt ran %v times for wrong pairs", n)
	}
	for name := range all {
		shown.WriteString(all[name].String())
	}
	stop()
	shown.WriteString(s.log.String())
	for _, secret := range []string{"hunter2", "pa55word", strings.TrimPrefix(right, "Basic "), strings.TrimPrefix(basic("alice", "pa55word"), "Basic "), hash, hash[10:]} {
		if strings.Contains(shown.String(), secret) {
			t.Errorf("%s is shown:\n%s", secret, shown.String())
		}
	}
}

func TestAuditHasTheNameOfTheUser(t *testing.T) {
	users, _ := usersFile(t, "alice", "hunter2")
	file := filepath.Join(t.TempDir(), "audit.json")
	s, _ := serveInside(t, fmt.Sprintf("auth: {htpasswd: %q}\naudit: {file: %q}\n", users, file))
	s.pull(t, "team/app", s.addImage(t, "team/app", 1000), "Authorization", basic("alice", "hunter2"))
	s.status(t, s.listen, "/v2/team/app/manifests/none", s.listen, "Authorization", basic("alice", "hunter2"))
	s.status(t, s.listen, "/v2/elsewhere/manifests/v1?ns=none.example.com", s.listen, "Authorization", basic("alice", "hunter2"))
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(raw), "\n"); lines != 3 || strings.Count(string(raw), `"user":"alice"`) != lines || strings.Contains(string(raw), "hunter2") {
		t.Errorf("want three lines with the user's name:\n%s", raw)
	}
}

func TestNameThatIsNotCheckedIsNotInTheAudit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.json")
	s, _ := serveInside(t, fmt.Sprintf("audit: {file: %q}\n", file))
	s.pull(t, "team/app", s.addImage(t, "team/app", 1000), "Authorization", basic("alice", "hunter2"))
	raw, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(raw), "alice") {
		t.Errorf("%v\n%s", err, raw)
	}
}

func TestPasswordIsNotSentToTheUpstream(t *testing.T) {
	users, _ := usersFile(t, "alice", "hunter2")
	sent := make(chan http.Header, 100)
	registry := serveRegistry(t, func(r *http.Request) { sent <- r.Header.Clone() })
	s, _ := serveInside(t, fmt.Sprintf("  - {host: plain.example.com, endpoint: %q}\nauth: {htpasswd: %q}\n", registry, users))
	s.status(t, s.listen, "/v2/team/app/manifests/v1?ns=plain.example.com", s.listen, "Authorization", basic("alice", "hunter2"))
	close(sent)
	n := 0
	for header := range sent {
		n++
		if got := header.Get("Authorization"); got != "" {
			t.Errorf("the upstream got %q", got)
		}
	}
	if n == 0 {
		t.Error("the upstream was not asked")
	}
}

// serveRegistry serves a registry that has nothing, and returns its URL.
func serveRegistry(t *testing.T, note func(*http.Request)) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note(r)
		http.NotFound(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}
