package signed_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/deploy/deploytest"
	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/proxy/policy/signed"
)

var update = flag.Bool("update", false, "write what the programs made to testdata, for the tests that run without them")

// A verdict is what a case must give.
type verdict struct {
	holds   bool
	unknown bool   // the answer is an error
	reason  string // a part of the reason, or of the error
}

// notationCases are images that notation signed, by their tags.
var notationCases = map[string]verdict{
	"right":         {holds: true, reason: "signed with notation by CN=right"},
	"checked":       {holds: true, reason: "signed with notation by CN=right"},
	"wrong":         {reason: "another signer"},
	"identity":      {reason: "another signer"},
	"expired":       {reason: "certificate that has expired"},
	"ended":         {reason: "notation's signature has expired"},
	"revoked":       {reason: "revoked"},
	"silent":        {unknown: true, reason: "does not answer"},
	"moved":         {reason: "of another digest"},
	"unsigned":      {reason: "no signature of notation"},
	"wrong-right":   {holds: true, reason: "signed with notation"},
	"revoked-right": {holds: true, reason: "signed with notation"},
	"silent-right":  {holds: true, reason: "signed with notation"},
}

const trustPolicy = `{"version":"1.0","trustPolicies":[{"name":"team","registryScopes":["*"],
 "signatureVerification":{"level":"strict"},"trustStores":["ca:team"],
 "trustedIdentities":["x509.subject: C=US, ST=WA, O=right"]}]}
`

// notationFolder makes the configuration of notation, with signers by name.
func notationFolder(t *testing.T, folder string, until time.Time) (team *authority) {
	t.Helper()
	team = newAuthority(t, "team")
	other := newAuthority(t, "other")
	team.write(t, folder)
	writeFile(t, filepath.Join(folder, "trustpolicy.json"), []byte(trustPolicy))
	writeCertificates(t, filepath.Join(folder, "truststore", "x509", "ca", "team", "team.crt"), team.cert)
	type signingKey struct {
		Name string `json:"name"`
		Key  string `json:"keyPath"`
		Cert string `json:"certPath"`
	}
	var keys []signingKey
	issue := func(name string, by *authority, organization string, serial int64, until time.Time, server string) {
		at := filepath.Join(folder, "keys", name)
		by.issue(t, at, organization, serial, until, server)
		keys = append(keys, signingKey{name, filepath.Join(at, "key.pem"), filepath.Join(at, "cert.pem")})
	}
	late := time.Now().Add(century / 2)
	issue("right", team, "right", 2, late, "")
	issue("checked", team, "right", serialGood, late, "http://ocsp.example/")
	issue("revoked", team, "right", serialRevoked, late, "http://ocsp.example/")
	issue("silent", team, "right", serialSilent, late, "http://ocsp.example/")
	issue("identity", team, "somebody", 3, late, "")
	issue("expired", team, "right", 4, until, "")
	issue("wrong", other, "right", 5, late, "")
	raw, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(folder, "signingkeys.json"), raw)
	return team
}

// run runs a program.
func run(t *testing.T, env []string, program string, args ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return nil
}

// mustRun is run that must not fail.
func mustRun(t *testing.T, env []string, program string, args ...string) {
	t.Helper()
	if err := run(t, env, program, args...); err != nil {
		t.Fatal(err)
	}
}

// startRegistry starts a registry with the referrers API, and returns its URL.
func startRegistry(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return server.URL
}

func TestImagesAreDecidedAsByNotation(t *testing.T) {
	deploytest.Require(t, "notation")
	expires := time.Now().Add(6 * time.Second).Truncate(time.Second)
	home := t.TempDir()
	config := filepath.Join(home, "notation")
	team := notationFolder(t, config, expires)
	services := &responder{by: team}
	proxy := httptest.NewServer(services)
	t.Cleanup(proxy.Close)
	env := []string{"XDG_CONFIG_HOME=" + home, "http_proxy=" + proxy.URL}

	at := startRegistry(t)
	content := newMemory()
	images := make(map[string]policy.Image)
	for tag := range notationCases {
		images[tag] = content.addImage(t, tag)
	}
	content.push(t, at)
	reference := func(tag string) string {
		return strings.TrimPrefix(at, "http://") + "/" + repository + "@" + images[tag].Digest.String()
	}
	for tag := range notationCases {
		args := []string{"sign", "--insecure-registry"}
		keys := strings.Split(tag, "-")
		switch tag {
		case "unsigned", "moved":
			continue
		case "ended":
			keys, args = []string{"right"}, append(args, "--expiry", "1s")
		}
		for _, key := range keys {
			mustRun(t, env, "notation", append(args, "--key", key, reference(tag))...)
		}
	}
	for tag, image := range images {
		if tag != "moved" {
			content.pull(t, at, image)
		}
	}
	content.move(t, images["right"], images["moved"])
	content.push(t, at)
	<-time.After(time.Until(expires.Add(time.Second)))

	condition := notationCondition(t, config, content, services)
	for tag, want := range notationCases {
		decide(t, condition, images[tag], tag, want)
		err := run(t, env, "notation", "verify", "--insecure-registry", reference(tag))
		if (err == nil) != want.holds {
			t.Errorf("%s: notation itself says: %v", tag, err)
		}
	}
	if *update {
		writeFixture(t, "notation", content)
		for _, name := range []string{"trustpolicy.json", "ca.crt", "ca.key", "truststore/x509/ca/team/team.crt"} {
			raw, err := os.ReadFile(filepath.Join(config, name))
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join("testdata", "notation", name), raw)
		}
	}
}

func notationCondition(t *testing.T, config string, content signed.Content, services http.RoundTripper) *signed.Condition {
	t.Helper()
	return newCondition(t, signed.Options{
		Content: content, HTTP: &http.Client{Transport: services},
		Notation: &signed.Notation{TrustPolicy: filepath.Join(config, "trustpolicy.json"), TrustStore: filepath.Join(config, "truststore")},
	})
}

// decide compares the answer about an image with the one wanted.
func decide(t *testing.T, c *signed.Condition, image policy.Image, tag string, want verdict) {
	t.Helper()
	got, err := c.Evaluate(t.Context(), image)
	text := got.Reason
	if err != nil {
		text = err.Error()
	}
	if got.Holds != want.holds || (err != nil) != want.unknown || !strings.Contains(text, want.reason) {
		t.Errorf("%s: got %+v, %v, want %+v", tag, got, err, want)
	}
	if err == nil && got.Basis == "" {
		t.Errorf("%s: there is no basis", tag)
	}
}

// move makes the signatures of an image those of another one.
func (m *memory) move(t *testing.T, from, to policy.Image) {
	t.Helper()
	manifest := m.Manifests[to.Digest.String()]
	subject := &ocispec.Descriptor{MediaType: manifest.MediaType, Digest: to.Digest, Size: int64(len(manifest.Raw))}
	for _, d := range m.Refers[from.Digest] {
		var parsed ocispec.Manifest
		if err := json.Unmarshal(m.Manifests[d.Digest.String()].Raw, &parsed); err != nil {
			t.Fatal(err)
		}
		parsed.Subject = subject
		m.add(t, "", parsed)
	}
	tag := func(image policy.Image) string { return strings.Replace(image.Digest.String(), ":", "-", 1) + ".sig" }
	if signature, ok := m.Manifests[tag(from)]; ok {
		m.Manifests[tag(to)] = signature
	}
}

// writeFixture writes a repository to a file of testdata.
func writeFixture(t *testing.T, name string, content *memory) {
	t.Helper()
	raw, err := json.MarshalIndent(content, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join("testdata", name, "repository.json"), append(raw, '\n'))
}

// readFixture reads what writeFixture wrote.
func readFixture(t *testing.T, name string) *memory {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name, "repository.json"))
	if err != nil {
		t.Fatal(err)
	}
	content := newMemory()
	if err := json.Unmarshal(raw, content); err != nil {
		t.Fatal(err)
	}
	return content
}
