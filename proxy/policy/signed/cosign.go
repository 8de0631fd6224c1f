package signed

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// Cosign says which signatures of cosign count: those of any of the keys, and those of any of the
// identities.
type Cosign struct {
	// Keys are public keys: files in PEM, or keys in AWS KMS (awskms://…).
	Keys []string
	// TrustedRoot is the file with the trusted root of a Sigstore, such as "cosign trusted-root create" makes.
	// It is needed for identities. With one, a signature by a key has to be in one of its logs, if it has any.
	TrustedRoot string
	// Identities are those that certificates name.
	Identities []Identity
}

// Identity is one that a certificate names: an issuer and a subject, each as a whole or as a regular
// expression.
type Identity struct {
	Issuer, IssuerRegexp   string
	Subject, SubjectRegexp string
}

const (
	// bundleType begins the artifact types of sigstore bundles. Their version follows.
	bundleType = "application/vnd.dev.sigstore.bundle"
	// signPredicate is the type of the statement that cosign signs for an image (cosign, pkg/types).
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// cosignVerifier verifies signatures of cosign.
type cosignVerifier struct {
	root       *root.TrustedRoot // nil without
	keys       []*key
	keyed      []verify.VerifierOption // what a signature by a key needs
	identified *verify.Verifier        // nil without identities
	identities []verify.PolicyOption
}

// newCosign reads the keys and the trusted root, and adds them to basis. It reports every mistake.
func newCosign(opts Cosign, basis hash.Hash) (*cosignVerifier, error) {
	v := &cosignVerifier{keyed: []verify.VerifierOption{verify.WithNoObserverTimestamps()}}
	var mistakes []error
	if len(opts.Keys) == 0 && len(opts.Identities) == 0 {
		mistakes = append(mistakes, errors.New("cosign needs keys, or a trusted_root and identities"))
	}
	for _, name := range opts.Keys {
		k, err := newKey(name, basis)
		mistakes = append(mistakes, err)
		v.keys = append(v.keys, k)
	}
	for _, identity := range opts.Identities {
		fmt.Fprintf(basis, "identity %q\n", identity)
		parsed, err := verify.NewShortCertificateIdentity(identity.Issuer, identity.IssuerRegexp, identity.Subject, identity.SubjectRegexp)
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("cosign's identity %q of issuer %q: %w",
				identity.Subject+identity.SubjectRegexp, identity.Issuer+identity.IssuerRegexp, err))
			continue
		}
		v.identities = append(v.identities, verify.WithCertificateIdentity(parsed))
	}
	switch {
	case opts.TrustedRoot != "":
		mistakes = append(mistakes, v.readRoot(opts.TrustedRoot, basis))
	case len(opts.Identities) > 0:
		mistakes = append(mistakes, errors.New("cosign's identities need a trusted_root: make one with \"cosign trusted-root create\""))
	}
	return v, errors.Join(mistakes...)
}

// readRoot reads a trusted root. What it can verify is demanded: logs, certificate logs, and a time.
func (v *cosignVerifier) readRoot(name string, basis hash.Hash) error {
	raw, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("cosign's trusted root: %w", err)
	}
	fmt.Fprintf(basis, "trusted root %d %s\n", len(raw), raw)
	if v.root, err = root.NewTrustedRootFromJSON(raw); err != nil {
		return fmt.Errorf("cosign's trusted root %s: %w", name, err)
	}
	var needs []verify.VerifierOption
	if len(v.root.RekorLogs()) > 0 {
		needs = append(needs, verify.WithTransparencyLog(1))
	}
	v.keyed = append(v.keyed, needs...)
	if len(v.identities) == 0 {
		return nil
	}
	if len(v.root.FulcioCertificateAuthorities()) == 0 {
		return fmt.Errorf("cosign's trusted root %s has no certificate authority, which identities need", name)
	}
	if len(v.root.RekorLogs()) == 0 && len(v.root.TimestampingAuthorities()) == 0 {
		return fmt.Errorf("cosign's trusted root %s has neither a log nor a timestamp authority: the time of a signature cannot be known", name)
	}
	if len(v.root.CTLogs()) > 0 {
		needs = append(needs, verify.WithSignedCertificateTimestamps(1))
	}
	v.identified, err = verify.NewVerifier(v.root, append(needs, verify.WithObserverTimestamps(1))...)
	return err
}

// verifyReferrer verifies a bundle that is a referrer of the image.
func (v *cosignVerifier) verifyReferrer(ctx context.Context, e *evaluation, d ocispec.Descriptor) (*good, error) {
	_, raw, err := e.single(ctx, d)
	if err != nil {
		return nil, err
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		return nil, refused("cosign's bundle cannot be read: %v", err)
	}
	sum, err := hex.DecodeString(e.image.Digest.Encoded())
	if err != nil {
		return nil, err
	}
	g, statement, err := v.verify(ctx, &b, func() verify.ArtifactPolicyOption {
		return verify.WithArtifactDigest(string(e.image.Digest.Algorithm()), sum)
	})
	if err != nil {
		return nil, v.another(ctx, &b, err)
	}
	if statement == nil {
		return nil, refused("cosign's bundle has no statement about an image")
	}
	if kind := statement.Statement.GetPredicateType(); kind != signPredicate {
		return nil, refused("the bundle is an attestation (%s), not a signature", kind)
	}
	return g, nil
}

// another replaces the error of a bundle by another one if the bundle is good for another digest.
func (v *cosignVerifier) another(ctx context.Context, b *bundle.Bundle, err error) error {
	if b.GetDsseEnvelope() == nil {
		return err
	}
	if _, _, otherwise := v.verify(ctx, b, verify.WithoutArtifactUnsafe); otherwise != nil {
		return err
	}
	return refused("cosign's signature is of another digest")
}

// verify verifies an entity by its certificate, or by each key. The result has a statement if the
// entity is an envelope. The artifact is one that is read once.
func (v *cosignVerifier) verify(ctx context.Context, entity verify.SignedEntity, artifact func() verify.ArtifactPolicyOption) (*good, *verify.VerificationResult, error) {
	material, err := entity.VerificationContent()
	if err != nil {
		return nil, nil, refused("cosign's signature cannot be read: %v", err)
	}
	if material.Certificate() != nil {
		return v.verifyIdentity(entity, artifact)
	}
	if len(v.keys) == 0 {
		return nil, nil, refused("cosign's signature is by a key, and the rule has identities only")
	}
	var unknown error
	var last error
	for _, k := range v.keys {
		verifier, err := k.load(ctx)
		if err != nil {
			unknown = errors.Join(unknown, err)
			continue
		}
		expiring := root.NewExpiringKey(verifier, time.Time{}, time.Time{})
		trusted := &keyMaterial{root.BaseTrustedMaterial{}, v.root, expiring}
		by, err := verify.NewVerifier(trusted, v.keyed...)
		if err != nil {
			return nil, nil, err
		}
		result, err := by.Verify(entity, verify.NewPolicy(artifact(), verify.WithKey()))
		if err == nil {
			return &good{reason: "signed with cosign by the key " + k.name}, withStatement(result), nil
		}
		last = err
	}
	if unknown != nil {
		return nil, nil, unknown
	}
	return nil, nil, refused("cosign's signature does not verify with a key of the rule: %v", last)
}

// verifyIdentity verifies an entity with a certificate.
func (v *cosignVerifier) verifyIdentity(entity verify.SignedEntity, artifact func() verify.ArtifactPolicyOption) (*good, *verify.VerificationResult, error) {
	if v.identified == nil {
		return nil, nil, refused("cosign's signature is by an identity, and the rule has keys only")
	}
	result, err := v.identified.Verify(entity, verify.NewPolicy(artifact(), v.identities...))
	var other *verify.ErrNoMatchingCertificateIdentity
	switch {
	case errors.As(err, &other):
		return nil, nil, refused("cosign's signature is by another identity: %v", err)
	case err != nil:
		return nil, nil, refused("cosign's signature does not verify: %v", err)
	}
	signer := result.Signature.Certificate
	return &good{reason: "signed with cosign by " + refused("%s of %s", signer.SubjectAlternativeName, signer.Issuer).Error()}, withStatement(result), nil
}

// withStatement returns a result that has a statement, or nil.
func withStatement(result *verify.VerificationResult) *verify.VerificationResult {
	if result.Statement == nil {
		return nil
	}
	return result
}

// keyMaterial trusts one key, with the logs and the timestamp authorities of a trusted root, if there is one.
type keyMaterial struct {
	root.BaseTrustedMaterial
	root *root.TrustedRoot
	key  *root.ExpiringKey
}

// PublicKeyVerifier is for root.TrustedMaterial. A signature's hint about its key is not trusted.
func (m *keyMaterial) PublicKeyVerifier(string) (root.TimeConstrainedVerifier, error) {
	return m.key, nil
}

// RekorLogs is for root.TrustedMaterial.
func (m *keyMaterial) RekorLogs() map[string]*root.TransparencyLog {
	if m.root == nil {
		return m.BaseTrustedMaterial.RekorLogs()
	}
	return m.root.RekorLogs()
}

// readOnce returns an artifact for each verification.
func readOnce(raw []byte) func() verify.ArtifactPolicyOption {
	return func() verify.ArtifactPolicyOption { return verify.WithArtifact(bytes.NewReader(raw)) }
}
