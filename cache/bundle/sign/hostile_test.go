package sign_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache/bundle/sign"
)

func TestStrangeSignaturesAreRefused(t *testing.T) {
	message := []byte("what was signed")
	good := string(signed(t, key(t, "p256"), message))
	const start = `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",`
	zeros := base64.StdEncoding.EncodeToString([]byte{0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x00})
	for name, signature := range map[string]string{
		"null":                              `null`,
		"a list":                            `[]`,
		"deep nesting":                      `{"x":` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + `}`,
		"an empty signature":                start + `"messageSignature":{}}`,
		"a signature of zeros":              start + `"messageSignature":{"signature":"` + zeros + `"}}`,
		"a signature that is no base64":     start + `"messageSignature":{"signature":"***"}}`,
		"a signature of 50 kB":              start + `"messageSignature":{"signature":"` + strings.Repeat("AAAA", 12_000) + `"}}`,
		"a message and an envelope":         start + `"messageSignature":{},"dsseEnvelope":{}}`,
		"an algorithm that does not exist":  start + `"messageSignature":{"messageDigest":{"algorithm":999,"digest":"AAAA"},"signature":"AAAA"}}`,
		"an empty digest":                   start + `"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":""},"signature":"AAAA"}}`,
		"a hint with escapes of a terminal": start + `"verificationMaterial":{"publicKey":{"hint":"` + strings.Repeat(`\u001b[2J`, 1000) + `"}},"messageSignature":{"signature":"AAAA"}}`,
		"the signature twice":               strings.TrimSuffix(good, "}") + good[strings.Index(good, `,"messageSignature"`):],
		"another document behind it":        good + good,
		"half of it":                        good[:len(good)/2],
	} {
		by, err := sign.Verify(message, []byte(signature), public(t, "p256"), public(t, "ed25519"), public(t, "rsa"))
		if err == nil || by != nil || len(err.Error()) > 2000 || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: verified by %v: %.500q", name, by, err)
		}
	}
}
