package signed

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	coresignature "github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/dir"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	framework "github.com/notaryproject/notation-plugin-framework-go/plugin"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/proxy/policy/signed/awssigner"
)

// Notation says which signatures of notation count.
type Notation struct {
	// TrustPolicy is the file with the trust policy document, in notation's form: trustpolicy.json.
	TrustPolicy string
	// TrustStore is the folder with the trust stores, in notation's form: x509/<type>/<name>/<file>.
	TrustStore string
}

// notationType is the artifact type of notation's signatures (Notary Project, signature specification).
const notationType = "application/vnd.cncf.notary.signature"

// notationVerifier verifies signatures of notation. It does not change.
type notationVerifier struct {
	document *trustpolicy.Document
	store    certificates
	http     *http.Client
	signer   awssigner.API
}

// newNotation reads the trust policy and the trust stores that it names, and adds them to basis.
func newNotation(opts Notation, client *http.Client, signer awssigner.API, basis hash.Hash) (*notationVerifier, error) {
	raw, err := os.ReadFile(opts.TrustPolicy)
	if err != nil {
		return nil, fmt.Errorf("notation's trust policy: %w", err)
	}
	v := &notationVerifier{document: new(trustpolicy.Document), http: client, signer: signer, store: make(certificates)}
	if err := json.Unmarshal(raw, v.document); err != nil {
		return nil, fmt.Errorf("notation's trust policy %s: %w", opts.TrustPolicy, err)
	}
	if err := v.document.Validate(); err != nil {
		return nil, fmt.Errorf("notation's trust policy %s: %w", opts.TrustPolicy, err)
	}
	if err := v.store.read(opts.TrustStore, v.document.TrustPolicies); err != nil {
		return nil, fmt.Errorf("notation's trust store %s: %w", opts.TrustStore, err)
	}
	fmt.Fprintf(basis, "trust policy %d %s\n", len(raw), raw)
	v.store.describe(basis)
	return v, nil
}

// reference returns the image as notation's trust policies name it.
func (v *notationVerifier) reference(e *evaluation) string {
	return fmt.Sprintf("%s/%s@%s", e.image.Host, e.image.Repository, e.image.Digest)
}

// skip reports whether the trust policy needs no signature for an image. It notes if none applies.
func (v *notationVerifier) skip(e *evaluation) (*good, bool) {
	applies, err := v.document.GetApplicableTrustPolicy(v.reference(e))
	if err != nil {
		e.bad = append(e.bad, refused("notation's trust policy does not cover %s/%s", e.image.Host, e.image.Repository).Error())
		return nil, false
	}
	if level, err := applies.SignatureVerification.GetVerificationLevel(); err != nil || level.Name != trustpolicy.LevelSkip.Name {
		return nil, false
	}
	return &good{reason: fmt.Sprintf("notation's trust policy %q skips the verification", applies.Name)}, true
}

// verify verifies one signature.
func (v *notationVerifier) verify(ctx context.Context, e *evaluation, d ocispec.Descriptor) (*good, error) {
	subject, err := e.subject(ctx)
	if err != nil {
		return nil, err
	}
	layer, raw, err := e.single(ctx, d)
	if err != nil {
		return nil, err
	}
	checks, err := newRevocations(v.http)
	if err != nil {
		return nil, err
	}
	plugins := &plugins{aws: awssigner.New(v.signer, e.image)}
	verifies, err := verifier.NewWithOptions(v.document, v.store, plugins, verifier.VerifierOptions{
		RevocationCodeSigningValidator: checks.signing, RevocationTimestampingValidator: checks.timestamping,
	})
	if err != nil {
		return nil, err
	}
	outcome, err := verifies.Verify(ctx, subject, raw, notation.VerifierVerifyOptions{
		ArtifactReference: v.reference(e), SignatureMediaType: layer.MediaType,
	})
	if err == nil {
		return accepted(outcome, checks.asked() || plugins.aws.Asked()), nil
	}
	if unknown := errors.Join(checks.unknown(), plugins.aws.Unknown()); unknown != nil && !checks.revoked() {
		return nil, fmt.Errorf("revocation of notation's signature %s: %w", short(d.Digest), unknown)
	}
	return nil, refusedByNotation(outcome, err)
}

// accepted returns a signature that counts, with the time at which it ends.
func accepted(outcome *notation.VerificationOutcome, revocable bool) *good {
	info := outcome.EnvelopeContent.SignerInfo
	g := &good{reason: "signed with notation", revocable: revocable, until: info.SignedAttributes.Expiry}
	if len(info.CertificateChain) == 0 {
		return g
	}
	g.reason += " by " + refused("%s", info.CertificateChain[0].Subject).Error()
	timed := len(info.UnsignedAttributes.TimestampSignature) > 0 ||
		info.SignedAttributes.SigningScheme == coresignature.SigningSchemeX509SigningAuthority
	for _, cert := range info.CertificateChain {
		if !timed { // the signature ends with its certificates
			g.until = earlier(g.until, cert.NotAfter)
		}
	}
	return g
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// meanings says what a failed check of notation means.
var meanings = map[trustpolicy.ValidationType]string{
	trustpolicy.TypeIntegrity:          "notation's signature is damaged",
	trustpolicy.TypeAuthenticity:       "notation's signature is of another signer",
	trustpolicy.TypeAuthenticTimestamp: "notation's signature has a certificate that has expired or was not valid in time",
	trustpolicy.TypeExpiry:             "notation's signature has expired",
	trustpolicy.TypeRevocation:         "notation's signature is revoked",
}

// refusedByNotation says why a signature does not count.
func refusedByNotation(outcome *notation.VerificationOutcome, err error) error {
	if outcome == nil {
		return refused("notation's signature: %v", err)
	}
	for _, result := range outcome.VerificationResults {
		if result.Action == trustpolicy.ActionEnforce && result.Error != nil {
			return refused("%s: %v", meanings[result.Type], result.Error)
		}
	}
	if outcome.EnvelopeContent != nil && outcome.Error != nil && strings.Contains(outcome.Error.Error(), "descriptor mismatch") {
		return refused("notation's signature is of another digest")
	}
	return refused("notation's signature: %v", err)
}

// certificates are the trust stores of a trust policy, by "<type>:<name>".
type certificates map[string][]*x509.Certificate

// GetCertificates is for truststore.X509TrustStore.
func (c certificates) GetCertificates(_ context.Context, kind truststore.Type, named string) ([]*x509.Certificate, error) {
	found, ok := c[string(kind)+":"+named]
	if !ok {
		return nil, fmt.Errorf("there is no trust store %s of type %s: %w", named, kind, fs.ErrNotExist)
	}
	return found, nil
}

// read reads the trust stores that policies name, in a folder.
func (c certificates) read(folder string, policies []trustpolicy.TrustPolicy) error {
	store := truststore.NewX509TrustStore(stores{os.DirFS(folder), folder})
	for _, p := range policies {
		for _, named := range p.TrustStores {
			kind, name, _ := strings.Cut(named, ":")
			found, err := store.GetCertificates(context.Background(), truststore.Type(kind), name)
			if err != nil {
				return err
			}
			c[named] = found
		}
	}
	return nil
}

// describe writes the certificates in an order that does not change.
func (c certificates) describe(basis hash.Hash) {
	for _, named := range slices.Sorted(maps.Keys(c)) {
		for _, cert := range c[named] {
			fmt.Fprintf(basis, "%s %x\n", named, cert.Raw)
		}
	}
}

// stores is notation's folder of trust stores, wherever it is. notation itself has it below its
// configuration.
type stores struct {
	fs.FS
	folder string
}

// SysPath is for dir.SysFS.
func (s stores) SysPath(items ...string) (string, error) {
	below, err := filepath.Rel(dir.TrustStoreDir, filepath.Join(items...))
	if err != nil {
		return "", err
	}
	return filepath.Join(s.folder, below), nil
}

// plugins are the plugins of notation that Larder has: the one of AWS Signer.
type plugins struct{ aws *awssigner.Plugin }

// Get is for plugin.Manager.
func (p *plugins) Get(_ context.Context, name string) (framework.Plugin, error) {
	if name != awssigner.Name {
		return nil, fmt.Errorf("there is no plugin of this name in Larder: %w", fs.ErrNotExist)
	}
	return p.aws, nil
}

// List is for plugin.Manager.
func (p *plugins) List(context.Context) ([]string, error) { return []string{awssigner.Name}, nil }
