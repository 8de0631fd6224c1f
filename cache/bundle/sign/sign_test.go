package sign_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/larder-registry/larder/cache/bundle/sign"
	"github.com/larder-registry/larder/deploy/deploytest"
)

// kinds are the keys of testdata, which cosign made.
var kinds = []string{"p256", "p384", "rsa", "ed25519"}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func password(s string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(s), nil }
}

// key returns a private key of testdata.
func key(t testing.TB, kind string) *sign.Signer {
	t.Helper()
	s, err := sign.ParsePrivateKey(kind+".key", testdata(t, kind+".key"), password("secret"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// public returns a public key of testdata.
func public(t testing.TB, kind string) *sign.Verifier {
	t.Helper()
	v, err := sign.ParsePublicKey(kind+".pub", testdata(t, kind+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func signed(t testing.TB, s *sign.Signer, message []byte) []byte {
	t.Helper()
	b, err := s.Sign(t.Context(), message)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignaturesOfCosignAreVerified(t *testing.T) {
	message := testdata(t, "message.txt")
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			signature := testdata(t, kind+".sigstore.json")
			keys := []*sign.Verifier{public(t, kinds[0]), public(t, kind)}
			if by, err := sign.Verify(message, signature, keys...); err != nil || by.String() != public(t, kind).String() {
				t.Errorf("verified by %v: %v", by, err)
			}
		})
	}
}

func TestCosignVerifiesSignatures(t *testing.T) {
	cosign := deploytest.Require(t, "cosign")
	message := filepath.Join("testdata", "message.txt")
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "signature")
			if err := os.WriteFile(file, signed(t, key(t, kind), testdata(t, "message.txt")), 0o600); err != nil {
				t.Fatal(err)
			}
			verify := func(message string) ([]byte, error) {
				return exec.CommandContext(t.Context(), cosign, "verify-blob", "--bundle", file,
					"--key", filepath.Join("testdata", kind+".pub"), "--insecure-ignore-tlog", message).CombinedOutput()
			}
			if out, err := verify(message); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if out, err := verify(filepath.Join("testdata", "make.sh")); err == nil {
				t.Errorf("another message is verified: %s", out)
			}
		})
	}
}

func TestKeysOfCosignSign(t *testing.T) {
	message := []byte("a message")
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			s := key(t, kind)
			if _, err := sign.Verify(message, signed(t, s, message), public(t, kind)); err != nil {
				t.Error(err)
			}
			got, err := s.Verifier().PEM()
			if err != nil || !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(testdata(t, kind+".pub"))) {
				t.Errorf("the public key is %s, %v", got, err)
			}
		})
	}
}

func TestPlainKeysSign(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for form, der := range map[string][]byte{
		"EC PRIVATE KEY": ecDER, "PRIVATE KEY": pkcs8, "RSA PRIVATE KEY": x509.MarshalPKCS1PrivateKey(rsaKey),
	} {
		s, err := sign.ParsePrivateKey(form, pem.EncodeToMemory(&pem.Block{Type: form, Bytes: der}), func() ([]byte, error) {
			return nil, errors.New("a plain key has no password")
		})
		if err != nil {
			t.Errorf("%s: %v", form, err)
			continue
		}
		if _, err := sign.Verify([]byte("a"), signed(t, s, []byte("a")), s.Verifier()); err != nil {
			t.Errorf("%s: %v", form, err)
		}
	}
}

func TestKeysThatCannotBeUsedAreRefused(t *testing.T) {
	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weakDER, err := x509.MarshalPKCS8PrivateKey(weak)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		pem      []byte
		password func() ([]byte, error)
		want     string
	}{
		"wrong password":   {testdata(t, "p256.key"), password("wrong"), "decryption failed"},
		"no password":      {testdata(t, "p256.key"), func() ([]byte, error) { return nil, errors.New("COSIGN_PASSWORD is not set") }, "COSIGN_PASSWORD is not set"},
		"a public key":     {testdata(t, "p256.pub"), password(""), "PUBLIC KEY: expected a private key"},
		"no PEM":           {[]byte("hello"), password(""), "expected a private key in PEM"},
		"a curve too weak": {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: weakDER}), password(""), "P-256"},
	} {
		if _, err := sign.ParsePrivateKey("site.key", c.pem, c.password); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "site.key") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		pem  []byte
		want string
	}{
		"a private key": {testdata(t, "p256.key"), "it is of the type \"ENCRYPTED SIGSTORE PRIVATE KEY\": expected a public key in PEM"},
		"no PEM":        {[]byte("hello"), "expected a public key in PEM"},
	} {
		if _, err := sign.ParsePublicKey("site.pub", c.pem); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "site.pub") {
			t.Errorf("%s as a public key: %v", name, err)
		}
	}
}

func TestSignaturesThatDoNotHoldAreRefused(t *testing.T) {
	message := []byte("what was signed")
	good := string(signed(t, key(t, "p256"), message))
	sum := sha256.Sum256([]byte("another"))
	digest := base64.StdEncoding.EncodeToString(sum[:])
	for _, c := range []struct {
		name, signature string
		key             string
		is              error
		want            string
	}{
		{"no signature", "", "p256", sign.ErrUnsigned, ""},
		{"spaces", " \n", "p256", sign.ErrUnsigned, ""},
		{"another key", good, "p384", sign.ErrOtherKey, "p384.pub (SHA256:"},
		{"another key, which the error names", good, "p384", nil, "it is by the key SHA256:"},
		{"a key of another kind", good, "ed25519", sign.ErrOtherKey, ""},
		{"a signature of something else", string(testdata(t, "p256.sigstore.json")), "p256", sign.ErrAltered, ""},
		{"another digest", replaceDigest(good, digest), "p256", sign.ErrAltered, ""},
		{"no digest, and another message", string(testdata(t, "ed25519.sigstore.json")), "ed25519", sign.ErrOtherKey, ""},
		{"a digest of a weak kind", strings.Replace(good, "SHA2_256", "HASH_ALGORITHM_UNSPECIFIED", 1), "p256", nil, "HASH_ALGORITHM_UNSPECIFIED"},
		{"no JSON", "hello", "p256", nil, "sigstore bundle"},
		{"another document", "{}", "p256", nil, "mediaType"},
		{"an attestation", `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"payload":"YQ==","payloadType":"a","signatures":[]}}`, "p256", nil, "cosign sign-blob"},
	} {
		t.Run(c.name, func(t *testing.T) {
			by, err := sign.Verify(message, []byte(c.signature), public(t, c.key))
			if err == nil || by != nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("verified by %v: %v", by, err)
			}
		})
	}
	if _, err := sign.Verify(message, []byte(good)); !errors.Is(err, sign.ErrOtherKey) {
		t.Errorf("without any key: %v", err)
	}
}

// replaceDigest replaces the digest of the message in a signature.
func replaceDigest(signature, digest string) string {
	before, rest, _ := strings.Cut(signature, `"digest":"`)
	_, after, _ := strings.Cut(rest, `"`)
	return before + `"digest":"` + digest + `"` + after
}

// Every bit of the signature itself counts.
func TestAlteredSignatureIsRefused(t *testing.T) {
	message := testdata(t, "message.txt")
	for _, kind := range kinds {
		before, rest, _ := strings.Cut(string(testdata(t, kind+".sigstore.json")), `"signature":"`)
		encoded, after, _ := strings.Cut(rest, `"`)
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		for i := range raw {
			raw[i] ^= 1
			altered := before + `"signature":"` + base64.StdEncoding.EncodeToString(raw) + `"` + after
			if _, err := sign.Verify(message, []byte(altered), public(t, kind)); !errors.Is(err, sign.ErrOtherKey) {
				t.Errorf("%s with byte %d altered: %v", kind, i, err)
			}
			raw[i] ^= 1
		}
	}
}

// cosign hashes the message first if the signature of an Ed25519 key goes to a log.
func TestHashedEd25519IsVerified(t *testing.T) {
	publicKey, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signature.LoadED25519phSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signer.SignMessage(strings.NewReader("a message"))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(publicKey)
	if err != nil {
		t.Fatal(err)
	}
	v, err := sign.ParsePublicKey("site.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	b := fmt.Sprintf(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","messageSignature":{"signature":%q}}`,
		base64.StdEncoding.EncodeToString(raw))
	if _, err := sign.Verify([]byte("a message"), []byte(b), v); err != nil {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	message := testdata(f, "message.txt")
	for _, kind := range kinds {
		f.Add(testdata(f, kind+".sigstore.json"))
	}
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{}}`))
	v := public(f, "p256")
	f.Fuzz(func(t *testing.T, signature []byte) {
		if by, err := sign.Verify(message, signature, v); (err == nil) != (by == v) {
			t.Errorf("verified by %v: %v", by, err)
		}
		if _, err := sign.Verify([]byte("another message"), signature, v); err == nil {
			t.Error("another message is verified")
		}
	})
}
