package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles/tlstest"
)

// The whole way of a node whose Larder has everything: "larder mirror" writes what containerd needs for a certificate of
// one's own authority, a client certificate and a password, and the pull does not fall back: the upstream is dead.
func TestContainerdPullsOverHTTPSWithACertificateAndAPassword(t *testing.T) {
	t.Parallel()
	requireContainerd(t)
	ca := tlstest.NewAuthority(t)
	server, node := ca.Server(t, "larder"), ca.Server(t, "node")
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users, credentials := filepath.Join(dir, "users"), filepath.Join(dir, "credentials")
	writeFile(t, users, "node:"+string(hash)+"\n")
	writeFile(t, credentials, "node:hunter2\n")
	ecr := startFakeECR(t)
	s := newStack(t, fmt.Sprintf(`tls: {cert: %q, key: %q, client_ca: %q}
auth: {htpasswd: %q}
default_upstream: %s
upstreams:
  - {host: %s, endpoint: %q, ecr: {api_endpoint: %q}}
`, server.Cert, server.Key, ca.File, users, ecr.Host, ecr.Host, ecr.Endpoint, ecr.Endpoint))
	s.ecr = ecr
	s.startLarder(t)

	c := startEmptyContainerd(t)
	args := []string{
		"mirror", "--config", s.config, "--containerd-dir", c.hosts, "--containerd-version", "1.7", "--registry", ecr.Host,
		"--ca", ca.File, "--client-cert", node.Cert, "--client-key", node.Key, "--credentials", credentials,
	}
	output(t, c.env, s.binary, args...)
	c.pullAndRun(t, ecr.image()) // its host does not exist but for Larder
	text, err := os.ReadFile(filepath.Join(c.hosts, ecr.Host, "hosts.toml"))
	if err != nil || !strings.Contains(string(text), "https://"+s.listen) {
		t.Errorf("%v\n%s", err, text)
	}
}
