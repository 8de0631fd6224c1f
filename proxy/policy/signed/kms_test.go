package signed_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/larder-registry/larder/proxy/policy/signed"
)

// A key in KMS is read when it is needed, once, and may then be offline.
func TestAKeyInKMSIsReadOnce(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "cosign", "right.pub"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		t.Fatal(err)
	}
	var down atomic.Bool
	down.Store(true)
	kms := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if down.Load() {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"__type":"ThrottlingException","message":"a-secret-text"}`))
			return
		}
		algorithms := []string{"ECDSA_SHA_256"}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"KeyId": "1", "PublicKey": block.Bytes, "SigningAlgorithms": algorithms,
			"KeyMetadata": map[string]any{"KeyId": "1", "SigningAlgorithms": algorithms},
		})
	}))
	t.Cleanup(kms.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_KMS": kms.URL, "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret",
		"AWS_MAX_ATTEMPTS": "1", "AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "AWS_PROFILE": "",
	} {
		t.Setenv(name, value)
	}
	content := readFixture(t, "cosign")
	condition := newCondition(t, signed.Options{Content: content, Cosign: &signed.Cosign{Keys: []string{"awskms:///alias/team"}}})
	right, wrong := content.image(t, "right"), content.image(t, "wrong")

	_, err = condition.Evaluate(t.Context(), right)
	if err == nil || !strings.Contains(err.Error(), "ThrottlingException") || strings.Contains(err.Error(), "a-secret-text") {
		t.Errorf("while KMS throttles: %v", err)
	}
	down.Store(false)
	decide(t, condition, right, "right", verdict{holds: true, reason: "by the key awskms:///alias/team"})
	kms.Close()
	decide(t, condition, right, "right, offline", verdict{holds: true, reason: "by the key awskms:///alias/team"})
	decide(t, condition, wrong, "wrong, offline", verdict{reason: "does not verify"})
}
