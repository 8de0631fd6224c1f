package main

import (
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// A signer signs an image.
type signer struct {
	name string
	sign func(t *testing.T, image string) signature
}

// A signature is how images are verified with the right key, and with a wrong one: by the program that has signed, and
// by Larder with a value of policy[].signed.
type signature struct {
	verify, wrong             func(t *testing.T, image string) error
	condition, wrongCondition string
}

// signers are all ways to sign that the tests know.
func signers() []signer {
	return []signer{
		{"cosign", cosign()},
		{"cosign with its older tags", cosign("--new-bundle-format=false", "--registry-referrers-mode=legacy")},
		{"notation", notation},
	}
}

// Signatures of images that were verified through Larder once verify as well when the upstream is dead: from lists of
// referrers and from tags, and with the right key only.
func TestSignaturesVerifyWithoutTheUpstream(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name string
		api  bool
	}{{"referrers API", true}, {"tags", false}} {
		for _, s := range signers() {
			t.Run(kind.name+"/"+s.name, func(t *testing.T) {
				upstream := httptest.NewServer(registry.New(registry.WithReferrersSupport(kind.api), registry.Logger(log.New(io.Discard, "", 0))))
				t.Cleanup(upstream.Close)
				host := strings.TrimPrefix(upstream.URL, "http://")
				image := randomImage(t)
				writeImage(t, host+"/team/app:1.0", image)
				digest, err := image.Digest()
				if err != nil {
					t.Fatal(err)
				}
				by := s.sign(t, host+"/team/app@"+digest.String())
				stack := newStack(t, fmt.Sprintf("upstreams: [{host: %s, endpoint: %q}]\n", clientsUpstream, upstream.URL))
				stack.startLarder(t)
				through := stack.listen + "/" + clientsUpstream + "/team/app:1.0"
				check := func(when string) {
					t.Helper()
					if err := by.verify(t, through); err != nil {
						t.Errorf("%s: %v", when, err)
					}
					if err := by.wrong(t, through); err == nil {
						t.Errorf("%s: it verifies with another key", when)
					}
				}
				check("while the upstream answers")
				upstream.Close()
				check("when the upstream is dead")
				if err := stack.larder.stop(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				stack.startLarder(t)
				check("when the upstream is dead, after a restart")
			})
		}
	}
}

// cosign signs with a key in a file. The flags choose the form of the signature.
func cosign(flags ...string) func(t *testing.T, image string) signature {
	return func(t *testing.T, image string) signature {
		t.Helper()
		deploytest.Require(t, "cosign")
		keys := t.TempDir()
		env := environ(t, "COSIGN_PASSWORD=test")
		for _, name := range []string{"right", "wrong"} {
			output(t, env, "cosign", "generate-key-pair", "--output-key-prefix", filepath.Join(keys, name))
		}
		args := append([]string{"sign", "--key", filepath.Join(keys, "right.key"), "--use-signing-config=false", "--tlog-upload=false",
			"--allow-http-registry", "--yes"}, flags...)
		output(t, env, "cosign", append(args, image)...)
		verifyWith := func(key string) func(t *testing.T, image string) error {
			return func(t *testing.T, image string) error {
				t.Helper()
				_, err := tryRun(t, environ(t), "cosign", "verify", "--key", filepath.Join(keys, key), "--insecure-ignore-tlog", "--allow-http-registry", image)
				return err
			}
		}
		condition := func(key string) string { return fmt.Sprintf("{cosign: {keys: [%s]}}", filepath.Join(keys, key)) }
		return signature{verifyWith("right.pub"), verifyWith("wrong.pub"), condition("right.pub"), condition("wrong.pub")}
	}
}

// notation signs with a certificate of its own.
func notation(t *testing.T, image string) signature {
	t.Helper()
	deploytest.Require(t, "notation")
	trusting := func(name string) (env []string) {
		t.Helper()
		env = environ(t)
		output(t, env, "notation", "cert", "generate-test", "--default", name)
		policy := filepath.Join(t.TempDir(), "policy.json")
		writeFile(t, policy, fmt.Sprintf(`{"version":"1.0","trustPolicies":[{"name":"all","registryScopes":["*"],
			"signatureVerification":{"level":"strict"},"trustStores":["ca:%s"],"trustedIdentities":["*"]}]}`, name))
		output(t, env, "notation", "policy", "import", policy)
		return env
	}
	right, other := trusting("right.example"), trusting("wrong.example")
	output(t, right, "notation", "sign", "--insecure-registry", image)
	verifyIn := func(env []string) func(t *testing.T, image string) error {
		return func(t *testing.T, image string) error {
			t.Helper()
			_, err := tryRun(t, env, "notation", "verify", "--insecure-registry", image)
			return err
		}
	}
	condition := func(env []string) string {
		var home string
		for _, entry := range env {
			if value, ok := strings.CutPrefix(entry, "XDG_CONFIG_HOME="); ok {
				home = value
			}
		}
		return fmt.Sprintf("{notation: {trust_policy: %s, trust_store: %s}}", filepath.Join(home, "notation", "trustpolicy.json"), filepath.Join(home, "notation", "truststore"))
	}
	return signature{verifyIn(right), verifyIn(other), condition(right), condition(other)}
}
