package daemon

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAuditFollowsTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.json"), filepath.Join(dir, "second.json")
	s, _ := serveInside(t, "audit: {file: "+first+"}\n")
	image := s.addImage(t, "team/app", 1000)
	s.pull(t, "team/app", image)
	wantLines := func(file string, n int) {
		t.Helper()
		raw, err := os.ReadFile(file)
		if err != nil || strings.Count(string(raw), "\n") != n || !strings.Contains(string(raw), image.Root.Digest.String()) {
			t.Errorf("%s has %q, %v; want %d lines about the image", file, raw, err, n)
		}
	}
	wantLines(first, 1)
	s.reload(t, "audit: {file: "+second+"}\n")
	s.pull(t, "team/app", image)
	wantLines(first, 1)
	wantLines(second, 1)

	s.reload(t, "audit: {file: /dev/full, required: true}\n")
	resp, err := s.client.Get("http://" + s.listen + "/v2/team/app/manifests/v1")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("with a file that takes nothing: %s", resp.Status)
	}
	if resp, err = s.client.Get("http://" + s.admin + "/readyz"); err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(text), "the audit cannot be written") {
		t.Errorf("/readyz says %q, %v", text, err)
	}
	s.reload(t, "")
	s.pull(t, "team/app", image)
}
