package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles/tlstest"
	"github.com/larder-registry/larder/config"
)

// A volume of Kubernetes replaces a folder by making a link name another one.
func TestDecisionsAreMadeAgainWhenTheTrustStoreIsReplaced(t *testing.T) {
	dir := t.TempDir()
	write := func(path string, content []byte) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, version := range []string{"old", "new"} {
		cert, err := os.ReadFile(tlstest.NewAuthority(t).File)
		if err != nil {
			t.Fatal(err)
		}
		write(version+"/x509/ca/acme/ca.crt", cert)
	}
	write("trustpolicy.json", []byte(`{"version":"1.0","trustPolicies":[{"name":"all","registryScopes":["*"],`+
		`"signatureVerification":{"level":"strict"},"trustStores":["ca:acme"],"trustedIdentities":["*"]}]}`))
	store := filepath.Join(dir, "store")
	basis := func(version string) string {
		t.Helper()
		if err := os.RemoveAll(store); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(dir, version), store); err != nil {
			t.Fatal(err)
		}
		rule, err := policyRule(config.Policy{
			Signed: &config.Signed{Notation: &config.Notation{TrustPolicy: filepath.Join(dir, "trustpolicy.json"), TrustStore: store}},
		}, policySources{})
		if err != nil {
			t.Fatal(err)
		}
		return rule.Basis
	}
	before := basis("old")
	if basis("old") != before {
		t.Error("the same certificates have another basis")
	}
	if basis("new") == before {
		t.Error("other certificates have the same basis")
	}
}
