package signed_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	dssepb "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	rekorpb "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/larder-registry/larder/deploy/deploytest"
	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/proxy/policy/signed"
)

// cosignCases are images that cosign signed with a key, by their tags.
var cosignCases = map[string]verdict{
	"right":           {holds: true, reason: "signed with cosign by the key"},
	"right-tag":       {holds: true, reason: "signed with cosign by the key"},
	"wrong":           {reason: "not verify with a key of the rule"},
	"wrong-tag":       {reason: "not verify with a key of the rule"},
	"both":            {holds: true, reason: "signed with cosign by the key"},
	"both-tag":        {holds: true, reason: "signed with cosign by the key"},
	"moved":           {reason: "of another digest"},
	"moved-tag":       {reason: "of another digest"},
	"unsigned":        {reason: "no signature of cosign"},
	"attestation":     {reason: "is an attestation (https://example.com/tested)"},
	"attested-signed": {holds: true, reason: "signed with cosign by the key"},
}

// stricter are the cases that cosign itself accepts: doc.go says why they are refused here.
var stricter = map[string]bool{"attestation": true}

func TestImagesAreDecidedAsByCosignWithKeys(t *testing.T) {
	deploytest.Require(t, "cosign")
	folder := t.TempDir()
	env := []string{"COSIGN_PASSWORD=test"}
	for _, name := range []string{"right", "wrong"} {
		mustRun(t, env, "cosign", "generate-key-pair", "--output-key-prefix", filepath.Join(folder, name))
	}
	at := startRegistry(t)
	content := newMemory()
	images := make(map[string]policy.Image)
	for tag := range cosignCases {
		images[tag] = content.addImage(t, tag)
	}
	content.push(t, at)
	reference := func(tag string) string {
		return strings.TrimPrefix(at, "http://") + "/" + repository + "@" + images[tag].Digest.String()
	}
	sign := func(tag, key string, more ...string) {
		t.Helper()
		args := append([]string{"sign", "--key", filepath.Join(folder, key+".key"), "--use-signing-config=false", "--tlog-upload=false",
			"--allow-http-registry", "--yes"}, more...)
		mustRun(t, env, "cosign", append(args, reference(tag))...)
	}
	older := []string{"--new-bundle-format=false", "--registry-referrers-mode=legacy"}
	for _, key := range []string{"right", "wrong"} {
		sign(key, key)
		sign(key+"-tag", key, older...)
	}
	for _, key := range []string{"wrong", "right"} {
		sign("both", key)
		sign("both-tag", key, older...)
	}
	predicate := filepath.Join(folder, "predicate.json")
	writeFile(t, predicate, []byte(`{"tested":false}`))
	for _, tag := range []string{"attestation", "attested-signed"} {
		mustRun(t, env, "cosign", "attest", "--key", filepath.Join(folder, "right.key"), "--use-signing-config=false", "--tlog-upload=false",
			"--allow-http-registry", "--yes", "--type", "https://example.com/tested", "--predicate", predicate, reference(tag))
	}
	sign("attested-signed", "right")
	for tag, image := range images {
		if !strings.HasPrefix(tag, "moved") {
			content.pull(t, at, image)
		}
	}
	content.move(t, images["right"], images["moved"])
	content.move(t, images["right-tag"], images["moved-tag"])
	content.push(t, at)

	condition := newCondition(t, signed.Options{Content: content, Cosign: &signed.Cosign{Keys: []string{filepath.Join(folder, "right.pub")}}})
	for tag, want := range cosignCases {
		decide(t, condition, images[tag], tag, want)
		err := run(t, env, "cosign", "verify", "--key", filepath.Join(folder, "right.pub"), "--insecure-ignore-tlog", "--allow-http-registry", reference(tag))
		if (err == nil) != (want.holds || stricter[tag]) {
			t.Errorf("%s: cosign itself says: %v", tag, err)
		}
	}
	if *update {
		writeFixture(t, "cosign", content)
		for _, name := range []string{"right.pub", "wrong.pub"} {
			raw, err := os.ReadFile(filepath.Join(folder, name))
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join("testdata", "cosign", name), raw)
		}
	}
}

const (
	issuer  = "https://issuer.example"
	signer  = "release@team.example"
	another = "somebody@team.example"
)

// identityCases are images that identities signed, by their tags.
var identityCases = map[string]verdict{
	"right":        {holds: true, reason: "signed with cosign by " + signer},
	"right-tag":    {holds: true, reason: "signed with cosign by " + signer},
	"identity":     {reason: "another identity"},
	"identity-tag": {reason: "another identity"},
	"late":         {reason: "does not verify"}, // the certificate had expired when it was used
	"late-tag":     {reason: "does not verify"},
	"unlogged":     {reason: "does not verify"}, // no log has it
	"moved":        {reason: "of another digest"},
	"moved-tag":    {reason: "of another digest"},
	"other-root":   {reason: "does not verify"},
}

// sigstore is a Sigstore with an authority for certificates and a log.
type sigstore struct{ *ca.VirtualSigstore }

func newSigstore(t *testing.T) sigstore {
	t.Helper()
	v, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	return sigstore{v}
}

// writeRoot writes the trusted root.
func (s sigstore) writeRoot(t *testing.T, path string) {
	t.Helper()
	logs := s.RekorLogs()
	for id, l := range logs {
		l.ID = decodeHex(t, id)
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, s.FulcioCertificateAuthorities(), nil, nil, logs)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := trusted.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, raw)
}

func decodeHex(t *testing.T, text string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// entry returns the log's entry about a signature, which the virtual Sigstore has in parts.
func (s sigstore) entry(t *testing.T, entity *ca.TestEntity, kind string) *rekorpb.TransparencyLogEntry {
	t.Helper()
	entries, err := entity.TlogEntries()
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.RekorLogID()
	if err != nil {
		t.Fatal(err)
	}
	entry := entries[0].TransparencyLogEntry()
	promise, err := s.RekorSignPayload(tlog.RekorPayload{
		LogID: id, IntegratedTime: entry.GetIntegratedTime(), LogIndex: entry.GetLogIndex(), Body: entries[0].Body(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &rekorpb.TransparencyLogEntry{
		LogIndex: entry.GetLogIndex(), LogId: entry.GetLogId(), IntegratedTime: entry.GetIntegratedTime(),
		KindVersion:      &rekorpb.KindVersion{Kind: kind, Version: "0.0.1"},
		InclusionPromise: &rekorpb.InclusionPromise{SignedEntryTimestamp: promise}, InclusionProof: entry.GetInclusionProof(),
		CanonicalizedBody: entry.GetCanonicalizedBody(),
	}
}

// attach signs an image as a bundle that is its referrer.
func (s sigstore) attach(t *testing.T, content *memory, image policy.Image, identity string, at time.Time, logged bool) {
	t.Helper()
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`,
		image.Digest.Encoded())
	entity, err := s.AttestAtTime(identity, issuer, []byte(statement), at, true)
	if err != nil {
		t.Fatal(err)
	}
	material, err := entity.VerificationContent()
	if err != nil {
		t.Fatal(err)
	}
	made, err := entity.SignatureContent()
	if err != nil {
		t.Fatal(err)
	}
	envelope := made.EnvelopeContent().RawEnvelope()
	payload, err := envelope.DecodeB64Payload()
	if err != nil {
		t.Fatal(err)
	}
	b := &bundlepb.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: &bundlepb.VerificationMaterial{
			Content: &bundlepb.VerificationMaterial_Certificate{Certificate: &commonpb.X509Certificate{RawBytes: material.Certificate().Raw}},
		},
		Content: &bundlepb.Bundle_DsseEnvelope{DsseEnvelope: &dssepb.Envelope{
			Payload: payload, PayloadType: envelope.PayloadType, Signatures: []*dssepb.Signature{{Sig: made.Signature()}},
		}},
	}
	if logged {
		b.VerificationMaterial.TlogEntries = []*rekorpb.TransparencyLogEntry{s.entry(t, entity, "dsse")}
	}
	raw, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	content.attach(t, image, b.MediaType, raw)
}

// attach adds a referrer with one layer.
func (m *memory) attach(t *testing.T, image policy.Image, mediaType string, layer []byte) ocispec.Descriptor {
	t.Helper()
	config := m.addBlob(ocispec.DescriptorEmptyJSON.MediaType, ocispec.DescriptorEmptyJSON.Data)
	manifest := m.Manifests[image.Digest.String()]
	return m.add(t, "", ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: mediaType, Config: config,
		Layers:  []ocispec.Descriptor{m.addBlob(mediaType, layer)},
		Subject: &ocispec.Descriptor{MediaType: manifest.MediaType, Digest: image.Digest, Size: int64(len(manifest.Raw))},
	})
}

// attachTag signs an image below its tag, as cosign did before bundles.
func (s sigstore) attachTag(t *testing.T, content *memory, image policy.Image, identity string, at time.Time) {
	t.Helper()
	text := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"registry.example/team/app"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, image.Digest)
	entity, err := s.SignAtTime(identity, issuer, text, at)
	if err != nil {
		t.Fatal(err)
	}
	material, err := entity.VerificationContent()
	if err != nil {
		t.Fatal(err)
	}
	made, err := entity.SignatureContent()
	if err != nil {
		t.Fatal(err)
	}
	entry := s.entry(t, entity, "hashedrekord")
	logged, err := json.Marshal(map[string]any{
		"SignedEntryTimestamp": entry.GetInclusionPromise().GetSignedEntryTimestamp(),
		"Payload": map[string]any{
			"body": entry.GetCanonicalizedBody(), "integratedTime": entry.GetIntegratedTime(), "logIndex": entry.GetLogIndex(),
			"logID": hex.EncodeToString(entry.GetLogId().GetKeyId()),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	certificate := "-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString(material.Certificate().Raw) + "\n-----END CERTIFICATE-----\n"
	content.attachSimple(t, image, text, map[string]string{
		"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(made.Signature()),
		"dev.sigstore.cosign/certificate":    certificate,
		"dev.sigstore.cosign/bundle":         string(logged),
	})
}

// attachSimple adds a signature below the tag of an image.
func (m *memory) attachSimple(t *testing.T, image policy.Image, text []byte, annotations map[string]string) {
	t.Helper()
	layer := m.addBlob("application/vnd.dev.cosign.simplesigning.v1+json", text)
	layer.Annotations = annotations
	config := m.addBlob(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":["`+layer.Digest.String()+`"]}}`))
	m.add(t, strings.Replace(image.Digest.String(), ":", "-", 1)+".sig",
		ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}})
}

// identityImages makes the images of identityCases.
func identityImages(t *testing.T, folder string) (*memory, map[string]policy.Image) {
	t.Helper()
	trusted, other := newSigstore(t), newSigstore(t)
	trusted.writeRoot(t, filepath.Join(folder, "root.json"))
	content := newMemory()
	images := make(map[string]policy.Image)
	for tag := range identityCases {
		images[tag] = content.addImage(t, tag)
	}
	inTime, late := time.Now().Add(5*time.Minute), time.Now().Add(time.Hour)
	trusted.attach(t, content, images["right"], signer, inTime, true)
	trusted.attachTag(t, content, images["right-tag"], signer, inTime)
	trusted.attach(t, content, images["identity"], another, inTime, true)
	trusted.attachTag(t, content, images["identity-tag"], another, inTime)
	trusted.attach(t, content, images["late"], signer, late, true)
	trusted.attachTag(t, content, images["late-tag"], signer, late)
	trusted.attach(t, content, images["unlogged"], signer, inTime, false)
	other.attach(t, content, images["other-root"], signer, inTime, true)
	content.move(t, images["right"], images["moved"])
	content.move(t, images["right-tag"], images["moved-tag"])
	return content, images
}

func identityCondition(t *testing.T, folder string, content signed.Content) *signed.Condition {
	t.Helper()
	return newCondition(t, signed.Options{Content: content, Cosign: &signed.Cosign{
		TrustedRoot: filepath.Join(folder, "root.json"), Identities: []signed.Identity{{Issuer: issuer, Subject: signer}},
	}})
}

func TestIdentitiesAreDecidedByCertificateLogAndTime(t *testing.T) {
	folder := t.TempDir()
	content, images := identityImages(t, folder)
	condition := identityCondition(t, folder, content)
	for tag, want := range identityCases {
		decide(t, condition, images[tag], tag, want)
	}
}

func TestIdentitiesAreDecidedAsByCosign(t *testing.T) {
	deploytest.Require(t, "cosign")
	folder := t.TempDir()
	content, images := identityImages(t, folder)
	at := startRegistry(t)
	content.push(t, at)
	for tag, want := range identityCases {
		reference := strings.TrimPrefix(at, "http://") + "/" + repository + "@" + images[tag].Digest.String()
		err := run(t, nil, "cosign", "verify", "--trusted-root", filepath.Join(folder, "root.json"), "--insecure-ignore-sct",
			"--certificate-identity", signer, "--certificate-oidc-issuer", issuer, "--allow-http-registry", reference)
		if (err == nil) != want.holds {
			t.Errorf("%s: cosign itself says: %v", tag, err)
		}
	}
}

func TestFixturesAreDecidedAsByTheProgramsThatMadeThem(t *testing.T) {
	t.Run("notation", func(t *testing.T) {
		folder := filepath.Join("testdata", "notation")
		content := readFixture(t, "notation")
		services := &responder{by: readAuthority(t, folder)}
		condition := notationCondition(t, folder, content, services)
		for tag, want := range notationCases {
			decide(t, condition, content.image(t, tag), tag, want)
		}
	})
	t.Run("cosign", func(t *testing.T) {
		content := readFixture(t, "cosign")
		condition := newCondition(t, signed.Options{Content: content, Cosign: &signed.Cosign{Keys: []string{filepath.Join("testdata", "cosign", "right.pub")}}})
		for tag, want := range cosignCases {
			decide(t, condition, content.image(t, tag), tag, want)
		}
	})
}

// layerOf returns the digest of the only layer of a manifest.
func layerOf(t *testing.T, m *memory, d ocispec.Descriptor) digest.Digest {
	t.Helper()
	var parsed ocispec.Manifest
	if err := json.Unmarshal(m.Manifests[d.Digest.String()].Raw, &parsed); err != nil {
		t.Fatal(err)
	}
	return parsed.Layers[0].Digest
}
