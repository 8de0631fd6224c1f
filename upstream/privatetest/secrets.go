package privatetest

import (
	"encoding/base64"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// RequireNoSecret fails the test if a file of a folder, or the log, has one of the secrets: plain, in a
// URL's form, or in base64 by itself or behind the name of its user, with which it begins ("alice's password").
func RequireNoSecret(t testing.TB, dir, log string, secrets ...string) {
	t.Helper()
	texts := map[string]string{"the log": log}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		texts[path] = string(raw)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for where, text := range texts {
		for _, secret := range secrets {
			user, _, _ := strings.Cut(secret, "'")
			for _, form := range []string{
				secret, url.QueryEscape(secret), url.PathEscape(secret),
				base64.StdEncoding.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(user + ":" + secret)),
			} {
				if strings.Contains(text, form) {
					t.Errorf("%s has %q of %q", where, form, secret)
				}
			}
		}
	}
}
