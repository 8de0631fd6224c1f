package signed

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	rekorpb "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

// Before bundles, cosign kept the signatures of an image in one manifest with a tag: each layer is a text
// that names the image, and the layer's annotations have its signature (cosign, specs/SIGNATURE_SPEC.md).
const (
	simpleSigningType     = "application/vnd.dev.cosign.simplesigning.v1+json"
	annotationSignature   = "dev.cosignproject.cosign/signature"
	annotationCertificate = "dev.sigstore.cosign/certificate"
	annotationLog         = "dev.sigstore.cosign/bundle"
	annotationTimestamp   = "dev.sigstore.cosign/rfc3161timestamp"

	// oldBundle is the version of bundles that has what these signatures have: a promise of the log.
	oldBundle = "application/vnd.dev.sigstore.bundle+json;version=0.1"
)

// verifyTag verifies the signatures below the image's tag, until one counts.
func (v *cosignVerifier) verifyTag(ctx context.Context, e *evaluation) *good {
	tag := fmt.Sprintf("%s-%s.sig", e.image.Digest.Algorithm(), e.image.Digest.Encoded())
	d, m, err := e.manifest(ctx, tag)
	var bad *refusedError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.As(err, &bad):
		e.bad = append(e.bad, fmt.Sprintf("%s (%s)", bad.why, tag))
		return nil
	case err != nil:
		e.unknown = append(e.unknown, err)
		return nil
	}
	e.seen = append(e.seen, d.Digest.String())
	for _, layer := range m.Layers {
		if layer.MediaType != simpleSigningType {
			continue
		}
		if g := e.next(layer, func() (*good, error) { return v.verifyLayer(ctx, e, layer) }); g != nil {
			return g
		}
	}
	return nil
}

// verifyLayer verifies one signature.
func (v *cosignVerifier) verifyLayer(ctx context.Context, e *evaluation, layer ocispec.Descriptor) (*good, error) {
	raw, err := e.layer(ctx, layer)
	if err != nil {
		return nil, err
	}
	b, err := convert(layer.Annotations, raw)
	if err != nil {
		return nil, refused("cosign's signature cannot be read: %v", err)
	}
	g, _, err := v.verify(ctx, b, readOnce(raw))
	if err != nil {
		return nil, err
	}
	var signed payload.SimpleContainerImage
	if err := json.Unmarshal(raw, &signed); err != nil {
		return nil, refused("cosign's signature is of something that is no image: %v", err)
	}
	if named := signed.Critical.Image.DockerManifestDigest; named != e.image.Digest.String() {
		return nil, refused("cosign's signature is of another digest: %s", named)
	}
	return g, nil
}

// convert returns a signature of the tag scheme as a bundle.
func convert(annotations map[string]string, text []byte) (*bundle.Bundle, error) {
	made, err := base64.StdEncoding.DecodeString(annotations[annotationSignature])
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	material := &bundlepb.VerificationMaterial{
		Content: &bundlepb.VerificationMaterial_PublicKey{PublicKey: &commonpb.PublicKeyIdentifier{}},
	}
	if cert := annotations[annotationCertificate]; cert != "" {
		block, _ := pem.Decode([]byte(cert))
		if block == nil {
			return nil, errors.New("its certificate is not in PEM")
		}
		material.Content = &bundlepb.VerificationMaterial_X509CertificateChain{X509CertificateChain: &commonpb.X509CertificateChain{
			Certificates: []*commonpb.X509Certificate{{RawBytes: block.Bytes}},
		}}
	}
	if entry := annotations[annotationLog]; entry != "" {
		converted, err := convertEntry([]byte(entry))
		if err != nil {
			return nil, err
		}
		material.TlogEntries = []*rekorpb.TransparencyLogEntry{converted}
	}
	if stamp := annotations[annotationTimestamp]; stamp != "" {
		var at struct{ SignedRFC3161Timestamp []byte }
		if err := json.Unmarshal([]byte(stamp), &at); err != nil {
			return nil, err
		}
		material.TimestampVerificationData = &bundlepb.TimestampVerificationData{
			Rfc3161Timestamps: []*commonpb.RFC3161SignedTimestamp{{SignedTimestamp: at.SignedRFC3161Timestamp}},
		}
	}
	return bundle.NewBundle(&bundlepb.Bundle{
		MediaType:            oldBundle,
		VerificationMaterial: material,
		Content: &bundlepb.Bundle_MessageSignature{MessageSignature: &commonpb.MessageSignature{
			MessageDigest: &commonpb.HashOutput{Algorithm: commonpb.HashAlgorithm_SHA2_256, Digest: sum[:]},
			Signature:     made,
		}},
	})
}

// convertEntry returns an entry of a log as bundles have it.
func convertEntry(raw []byte) (*rekorpb.TransparencyLogEntry, error) {
	var entry struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	if err := json.Unmarshal(raw, &entry); err != nil {
		return nil, err
	}
	var kind struct {
		Kind    string `json:"kind"`
		Version string `json:"apiVersion"`
	}
	if err := json.Unmarshal(entry.Payload.Body, &kind); err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(entry.Payload.LogID)
	if err != nil {
		return nil, err
	}
	return &rekorpb.TransparencyLogEntry{
		LogIndex:          entry.Payload.LogIndex,
		LogId:             &commonpb.LogId{KeyId: id},
		KindVersion:       &rekorpb.KindVersion{Kind: kind.Kind, Version: kind.Version},
		IntegratedTime:    entry.Payload.IntegratedTime,
		InclusionPromise:  &rekorpb.InclusionPromise{SignedEntryTimestamp: entry.SignedEntryTimestamp},
		CanonicalizedBody: entry.Payload.Body,
	}, nil
}
