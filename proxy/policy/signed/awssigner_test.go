package signed_test

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/jws"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/proxy/policy/signed"
	"github.com/larder-registry/larder/proxy/policy/signed/awssigner"
)

const (
	profile = "arn:aws:signer:eu-west-1:123456789012:/signing-profiles/release"
	version = profile + "/abcdefgh12"
	job     = "arn:aws:signer:eu-west-1:123456789012:/signing-jobs/1"
	alias   = "arn:aws:signer:eu-west-1:123456789012:/aliases/prod"
)

// signerAPI is AWS Signer's answer.
type signerAPI struct {
	revoked []string
	err     error
	asked   []awssigner.Question
}

// Revoked is for awssigner.API.
func (a *signerAPI) Revoked(_ context.Context, _ policy.Image, q awssigner.Question) ([]string, error) {
	a.asked = append(a.asked, q)
	return a.revoked, a.err
}

// signAsAWSSigner signs an image as AWS Signer does, whose service vouches for the time.
func signAsAWSSigner(t *testing.T, m *memory, image policy.Image, by *authority, attributes map[string]string) {
	t.Helper()
	key := newKey(t)
	template := *by.cert
	template.IsCA, template.KeyUsage, template.ExtKeyUsage = false, x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	template.Subject.CommonName, template.BasicConstraintsValid = "AWS Signer", false
	template.NotAfter = time.Now().Add(time.Hour)
	leaf := certify(t, &template, by.cert, key.Public(), by.key)
	local, err := signature.NewLocalSigner([]*x509.Certificate{leaf, by.cert}, key)
	if err != nil {
		t.Fatal(err)
	}
	manifest := m.Manifests[image.Digest.String()]
	payload, err := json.Marshal(map[string]any{
		"targetArtifact": ocispec.Descriptor{MediaType: manifest.MediaType, Digest: image.Digest, Size: int64(len(manifest.Raw))},
	})
	if err != nil {
		t.Fatal(err)
	}
	request := &signature.SignRequest{
		Payload: signature.Payload{ContentType: "application/vnd.cncf.notary.payload.v1+json", Content: payload},
		Signer:  local, SigningTime: time.Now().Truncate(time.Second), SigningScheme: signature.SigningSchemeX509SigningAuthority,
	}
	for name, value := range attributes {
		request.ExtendedSignedAttributes = append(request.ExtendedSignedAttributes, signature.Attribute{Key: name, Critical: true, Value: value})
	}
	raw, err := jws.NewEnvelope().Sign(request)
	if err != nil {
		t.Fatal(err)
	}
	config := m.addBlob(notationType, []byte(`{}`))
	m.add(t, "", ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: config,
		Layers:  []ocispec.Descriptor{m.addBlob(jws.MediaTypeEnvelope, raw)},
		Subject: &ocispec.Descriptor{MediaType: manifest.MediaType, Digest: image.Digest, Size: int64(len(manifest.Raw))},
	})
}

func TestSignaturesOfAWSSigner(t *testing.T) {
	by := newAuthority(t, "aws")
	plain := map[string]string{
		"io.cncf.notary.verificationPlugin":           awssigner.Name,
		"io.cncf.notary.verificationPluginMinVersion": "1.0.0",
		"com.amazonaws.signer.signingProfileVersion":  version,
		"com.amazonaws.signer.signingJob":             job,
	}
	with := func(name, value string) map[string]string {
		changed := map[string]string{name: value}
		for k, v := range plain {
			if _, ok := changed[k]; !ok {
				changed[k] = v
			}
		}
		return changed
	}
	const holds = "signed with notation by"
	for name, c := range map[string]struct {
		trusts     string
		level      string // strict if empty
		attributes map[string]string
		api        *signerAPI
		want       verdict
	}{
		"a trusted profile":                 {profile, "", plain, &signerAPI{}, verdict{holds: true, reason: holds}},
		"a trusted version":                 {version, "", plain, &signerAPI{}, verdict{holds: true, reason: holds}},
		"another version":                   {profile + "/zzzzzzzz99", "", plain, &signerAPI{}, verdict{reason: "is not trusted"}},
		"another profile":                   {profile + "2", "", plain, &signerAPI{}, verdict{reason: "is not trusted"}},
		"a trusted alias":                   {alias, "", with("com.amazonaws.signer.signingProfileAlias", alias), &signerAPI{}, verdict{holds: true, reason: holds}},
		"an alias that the signature lacks": {alias, "", plain, &signerAPI{}, verdict{reason: "is not trusted"}},
		"any profile":                       {"*", "", plain, &signerAPI{}, verdict{reason: "takes no *"}},
		"a revoked job":                     {profile, "", plain, &signerAPI{revoked: []string{job}}, verdict{reason: "is revoked: " + job}},
		"a throttled service":               {profile, "", plain, &signerAPI{err: errors.New("ThrottlingException")}, verdict{unknown: true, reason: "ThrottlingException"}},
		"no service":                        {profile, "", plain, nil, verdict{unknown: true, reason: "cannot be asked"}},
		"an unknown critical attribute":     {profile, "", with("com.example.more", "x"), &signerAPI{}, verdict{reason: "was not processed"}},
		"another plugin":                    {profile, "", with("io.cncf.notary.verificationPlugin", "com.example"), &signerAPI{}, verdict{reason: "there is no plugin of this name in Larder"}},
		"a newer plugin":                    {profile, "", with("io.cncf.notary.verificationPluginMinVersion", "9.0.0"), &signerAPI{}, verdict{reason: "9.0.0"}},
		"a throttled service, permissive":   {profile, "permissive", plain, &signerAPI{err: errors.New("ThrottlingException")}, verdict{holds: true, reason: holds}},
		"a revoked job, audit":              {profile, "audit", plain, &signerAPI{revoked: []string{job}}, verdict{holds: true, reason: holds}},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			writeCertificates(t, filepath.Join(folder, "x509", "signingAuthority", "aws", "aws.crt"), by.cert)
			document, err := json.Marshal(map[string]any{"version": "1.0", "trustPolicies": []any{map[string]any{
				"name": "aws", "registryScopes": []string{"*"}, "signatureVerification": map[string]string{"level": cmp.Or(c.level, "strict")},
				"trustStores": []string{"signingAuthority:aws"}, "trustedIdentities": []string{c.trusts},
			}}})
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(folder, "trustpolicy.json"), document)
			m := newMemory()
			image := m.addImage(t, "app")
			signAsAWSSigner(t, m, image, by, c.attributes)
			opts := signed.Options{Content: m, Notation: &signed.Notation{TrustPolicy: filepath.Join(folder, "trustpolicy.json"), TrustStore: folder}}
			if c.api != nil {
				opts.Signer = c.api
			}
			decide(t, newCondition(t, opts), image, name, c.want)
			if c.api == nil || len(c.api.asked) == 0 {
				return
			}
			asked := c.api.asked[0]
			if asked.Region != "eu-west-1" || asked.Job != job || asked.ProfileVersion != version || asked.Signed.IsZero() ||
				len(asked.CertificateHashes) != 2 || len(asked.CertificateHashes[0]) != 2*96 {
				t.Errorf("asked %+v", asked)
			}
		})
	}
}
