package sign_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache/bundle/sign"
)

const kmsKey = "awskms:///alias/larder"

// startKMS starts a fake of AWS KMS with one key, and makes it the one that the SDK finds.
func startKMS(t *testing.T, curve elliptic.Curve, algorithm string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	serveKMS(t, func(action string, in map[string]any) (int, any) {
		if in["KeyId"] != "alias/larder" {
			return http.StatusBadRequest, map[string]string{"__type": "NotFoundException", "message": "there is no such key"}
		}
		switch action {
		case "GetPublicKey":
			return http.StatusOK, map[string]any{"KeyId": "1", "PublicKey": der, "SigningAlgorithms": []string{algorithm}}
		case "DescribeKey":
			return http.StatusOK, map[string]any{"KeyMetadata": map[string]any{"KeyId": "1", "SigningAlgorithms": []string{algorithm}}}
		case "Sign":
			var digest []byte
			raw, _ := json.Marshal(in["Message"])
			if err := json.Unmarshal(raw, &digest); err != nil || in["SigningAlgorithm"] != algorithm {
				return http.StatusBadRequest, map[string]string{"__type": "ValidationException"}
			}
			signed, err := private.Sign(rand.Reader, digest, crypto.SHA256)
			if err != nil {
				t.Error(err)
			}
			return http.StatusOK, map[string]any{"Signature": signed}
		}
		return http.StatusBadRequest, map[string]string{"__type": "UnknownOperationException"}
	})
}

// serveKMS starts a fake of AWS KMS that gives these answers.
func serveKMS(t *testing.T, answer func(action string, in map[string]any) (int, any)) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in map[string]any
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		if token := r.Header.Get("X-Amz-Security-Token"); token != "a-session-token" {
			t.Errorf("the session token is %q", token)
		}
		status, out := answer(action, in)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(out); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_KMS": server.URL, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "AKID",
		"AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "a-session-token", "AWS_MAX_ATTEMPTS": "1",
		"AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "AWS_PROFILE": "",
	} {
		t.Setenv(name, value)
	}
}

func TestKMSSignsAndItsPublicKeyVerifies(t *testing.T) {
	for name, c := range map[string]struct {
		curve     elliptic.Curve
		algorithm string
	}{
		"P-256": {elliptic.P256(), "ECDSA_SHA_256"},
		"P-384": {elliptic.P384(), "ECDSA_SHA_384"},
	} {
		t.Run(name, func(t *testing.T) {
			startKMS(t, c.curve, c.algorithm)
			s, err := sign.OpenKMS(t.Context(), kmsKey)
			if err != nil {
				t.Fatal(err)
			}
			signature := signed(t, s, []byte("a message"))
			pem, err := s.Verifier().PEM()
			if err != nil {
				t.Fatal(err)
			}
			exported, err := sign.ParsePublicKey("site.pub", pem) // a site without a network has this
			if err != nil {
				t.Fatal(err)
			}
			if _, err := sign.Verify([]byte("a message"), signature, exported); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestErrorsOfKMSNameTheKeyWithoutSecrets(t *testing.T) {
	serveKMS(t, func(string, map[string]any) (int, any) {
		return http.StatusForbidden, map[string]string{
			"__type": "InvalidSignatureException", "message": "the canonical request is x-amz-security-token:a-session-token",
		}
	})
	_, err := sign.OpenKMS(t.Context(), kmsKey)
	if err == nil || !strings.Contains(err.Error(), kmsKey) || !strings.Contains(err.Error(), "InvalidSignatureException") {
		t.Errorf("got %v", err)
	}
	if err != nil && strings.Contains(err.Error(), "a-session-token") {
		t.Errorf("the error has the session token: %v", err)
	}

	startKMS(t, elliptic.P256(), "ECDSA_SHA_256")
	if _, err := sign.OpenKMS(t.Context(), "awskms:///alias/other"); err == nil || !strings.Contains(err.Error(), "there is no such key") {
		t.Errorf("another key: %v", err)
	}
	if _, err := sign.OpenKMS(t.Context(), "awskms://nonsense"); err == nil || !strings.Contains(err.Error(), "awskms://nonsense") {
		t.Errorf("a key that is no reference: %v", err)
	}
}

func TestOnlyAWSKMSIsKMS(t *testing.T) {
	for key, want := range map[string]bool{kmsKey: true, "site.key": false, "gcpkms://projects/x": false, "": false} {
		if got := sign.IsKMS(key); got != want {
			t.Errorf("IsKMS(%q) = %t", key, got)
		}
	}
}
