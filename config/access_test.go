package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/config"
)

// loadText loads a configuration of this text, below a folder.
func loadText(t *testing.T, dir, text string) (*config.Config, error) {
	t.Helper()
	path := filepath.Join(dir, "larder.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(path)
}

func TestAccessKeyIsOutsideOfTheCache(t *testing.T) {
	t.Setenv("HOME", "/home/someone")
	t.Setenv("XDG_CONFIG_HOME", "")
	c, err := loadText(t, t.TempDir(), "listen: 127.0.0.1:5000\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.Access.KeyFile == "" || strings.HasPrefix(c.Access.KeyFile, c.Cache.Dir) {
		t.Errorf("the key is at %q, the cache at %q", c.Access.KeyFile, c.Cache.Dir)
	}
}

func TestAccessByClientIsRefusedWhereItCannotHold(t *testing.T) {
	const client = "upstreams: [{host: registry.example.com, access: client}]\n"
	for name, test := range map[string]struct{ text, mistake string }{
		"on loopback":                 {client, ""},
		"on localhost":                {"listen: localhost:5000\n" + client, ""},
		"offline":                     {"upstreams: [{host: registry.example.com, access: client, offline: true}]\n", "upstreams[0].access: client is not possible together with offline"},
		"beyond loopback":             {"listen: 192.0.2.1:5000\n" + client, "upstreams[0].access: client needs tls"},
		"everywhere":                  {"listen: \":5000\"\n" + client, "upstreams[0].access: client needs tls"},
		"to an upstream in plain":     {"upstreams: [{host: registry.example.com, access: client, endpoint: \"http://192.0.2.1\"}]\n", "upstreams[0].endpoint: expected https"},
		"with a key in the cache":     {"cache: {dir: cache}\naccess: {key_file: cache/key}\n" + client, "access.key_file: expected a file outside of cache.dir"},
		"that nobody knows":           {"upstreams: [{host: registry.example.com, access: pod}]\n", "upstreams[0].access: expected"},
		"with a realm and a query":    {"access: {realm: \"https://cache.example.internal?x=y\"}\n" + client, "access.realm: expected a URL without query"},
		"with a realm and a password": {"access: {realm: \"https://me:hunter2@cache.example.internal\"}\n" + client, "access.realm: expected a URL without user name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadText(t, t.TempDir(), test.text)
			switch {
			case test.mistake == "" && err != nil:
				t.Error(err)
			case test.mistake != "" && (err == nil || !strings.Contains(err.Error(), test.mistake) || strings.Contains(err.Error(), "hunter2")):
				t.Errorf("got %v, want %q", err, test.mistake)
			}
		})
	}
}
