package daemon

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/larder-registry/larder/config"
)

// status is the status and the body of a GET with a Host and headers, which come in pairs.
func (s *inside) status(t *testing.T, addr, path, host string, header ...string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

func TestNoWebPageReachesALoopbackListener(t *testing.T) {
	s, _ := serveInside(t, "names: [cache.example.internal]\n")
	image := s.addImage(t, "team/app", 1000)
	for addr, paths := range map[string][]string{
		s.listen: {"/v2/", "/v2/team/app/manifests/v1", "/v2/team/app/blobs/" + image.Blobs[0].Digest.String(), "/v2/team/app/tags/list", "/other"},
		s.admin:  {"/", "/metrics", "/healthz", "/readyz", "/page/main.js", "/api/v1/events", "/debug/pprof/cmdline", "/other"},
	} {
		_, port, _ := strings.Cut(addr, ":")
		for _, path := range paths {
			if status, body := s.status(t, addr, path, "evil.example:"+port); status != http.StatusMisdirectedRequest || !strings.Contains(body, "evil.example") {
				t.Errorf("%s by the Host of a page: %d %s, want 421 with its name", path, status, body)
			}
			if status, _ := s.status(t, addr, path, addr, "Sec-Fetch-Site", "cross-site"); status != http.StatusForbidden {
				t.Errorf("%s from a page of another site: %d, want 403", path, status)
			}
			if status, _ := s.status(t, addr, path, addr, "Origin", "http://localhost:3000"); status != http.StatusForbidden {
				t.Errorf("%s from a page of another port: %d, want 403", path, status)
			}
		}
		for _, host := range []string{addr, "localhost:" + port, "cache.example.internal", "cache.example.internal:" + port} {
			path := paths[1]
			if status, body := s.status(t, addr, path, host); status != http.StatusOK {
				t.Errorf("%s by Host %s: %d %s", path, host, status, body)
			}
		}
	}
}

// serveBeyondLoopback is serveInside on all addresses of the machine.
func serveBeyondLoopback(t *testing.T, more string) *inside {
	t.Helper()
	s, _ := serveInside(t, more,
		config.Override{Key: "listen", Value: "0.0.0.0:0", Source: "the test"}, config.Override{Key: "admin", Value: "0.0.0.0:0", Source: "the test"})
	return s
}

func TestListenersBeyondLoopbackWarnOnceThatTheyAnswerEveryHost(t *testing.T) {
	const warning = "DNS rebinding"
	s, _ := serveInside(t, "")
	if strings.Contains(s.log.String(), warning) {
		t.Errorf("listeners on loopback warn:\n%s", s.log)
	}
	exposed := serveBeyondLoopback(t, "")
	if n := strings.Count(exposed.log.String(), warning); n != 1 {
		t.Errorf("%d warnings for two listeners beyond loopback, want 1:\n%s", n, exposed.log)
	}
	_, port, _ := strings.Cut(s.listen, ":")
	if status, _ := s.status(t, exposed.listen, "/v2/", "any.example:"+port); status != http.StatusOK {
		t.Errorf("a Host, without names, beyond loopback: %d, want 200", status)
	}
	named := serveBeyondLoopback(t, "names: [node-7]\n")
	if strings.Contains(named.log.String(), warning) {
		t.Errorf("listeners with names warn:\n%s", named.log)
	}
	if status, _ := s.status(t, named.listen, "/v2/", "any.example"); status != http.StatusMisdirectedRequest {
		t.Errorf("another Host than names, beyond loopback: %d, want 421", status)
	}
	if status, _ := s.status(t, named.listen, "/v2/", "node-7"); status != http.StatusOK {
		t.Errorf("one of names, beyond loopback: %d, want 200", status)
	}
}
