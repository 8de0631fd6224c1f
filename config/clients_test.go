package config_test

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestPasswordsOfClientsNeedTLSBeyondLoopback(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"auth: {htpasswd: users}\n":                                        "",
		"listen: localhost:5000\nauth: {htpasswd: users}\n":                "",
		"listen: :5000\nauth: {htpasswd: users}\n":                         "expected together with tls",
		"listen: 192.0.2.7:5000\nauth: {htpasswd: users}\n":                "expected together with tls",
		"listen: :5000\ntls: {cert: c, key: k}\nauth: {htpasswd: users}\n": "",
	} {
		c, err := loadText(t, dir, text)
		switch {
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want %q", text, err, want)
		case want == "" && (err != nil || c.Auth.Htpasswd != filepath.Join(dir, "users")):
			t.Errorf("%s: %+v, %v", text, c, err)
		}
	}
}
