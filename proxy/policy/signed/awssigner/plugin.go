// Package awssigner is the part of AWS Signer's plugin for notation that verifies: which signing profiles
// are trusted, and whether a signature, its profile or its certificates are revoked. Signatures of AWS
// Signer, those of ECR's managed signing included, can only be verified with a plugin of its name.
//
// AWS's own (github.com/aws/aws-signer-notation-plugin) does the same; where it takes a failed request for
// a revocation, this one reports that the answer is not known. The facts are from its source, and from AWS
// Signer's API reference, GetRevocationStatus. The cryptography is notation's.
package awssigner

import (
	"context"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/notaryproject/notation-plugin-framework-go/plugin"

	"github.com/larder-registry/larder/proxy/policy"
)

// Name is the name by which signatures of AWS Signer ask for the plugin.
const Name = "com.amazonaws.signer.notation.plugin"

// version is compared with the oldest version that a signature asks for. It is the one of AWS's plugin
// whose behaviour this is.
const version = "1.0.2321"

// The signed attributes of AWS Signer's signatures.
const (
	attributeProfile = "com.amazonaws.signer.signingProfileVersion"
	attributeJob     = "com.amazonaws.signer.signingJob"
	attributeAlias   = "com.amazonaws.signer.signingProfileAlias"
)

// scheme is the signing scheme of AWS Signer, which vouches for the time of signing.
const scheme = "notary.x509.signingAuthority"

// Platform is the id of the signing platform for images.
const Platform = "Notation-OCI-SHA384-ECDSA"

// A Question is what AWS Signer is asked about a signature (GetRevocationStatus).
type Question struct {
	Region            string // of the signing profile
	ProfileVersion    string // ARN
	Job               string // ARN
	Signed            time.Time
	CertificateHashes []string // of each certificate and its issuer
}

// API asks AWS Signer.
type API interface {
	// Revoked returns what is revoked of a signature on an image: ARNs and hashes of certificates, or
	// nothing. It may be called by several goroutines.
	Revoked(ctx context.Context, image policy.Image, q Question) ([]string, error)
}

// Plugin is a plugin of notation for one signature. It is for one goroutine.
type Plugin struct {
	api     API
	image   policy.Image
	asked   bool
	unknown error
}

// New returns a plugin. With a nil api the answer about a revocation is not known.
func New(api API, image policy.Image) *Plugin { return &Plugin{api: api, image: image} }

// Asked reports whether the status of the signature was asked for.
func (p *Plugin) Asked() bool { return p.asked }

// Unknown is the error of a status that is not known, or nil.
func (p *Plugin) Unknown() error { return p.unknown }

// GetMetadata is for plugin.Plugin.
func (p *Plugin) GetMetadata(context.Context, *plugin.GetMetadataRequest) (*plugin.GetMetadataResponse, error) {
	return &plugin.GetMetadataResponse{
		Name: Name, Description: "AWS Signer", Version: version, URL: "https://docs.aws.amazon.com/signer",
		SupportedContractVersions: []string{plugin.ContractVersion},
		Capabilities:              []plugin.Capability{plugin.CapabilityTrustedIdentityVerifier, plugin.CapabilityRevocationCheckVerifier},
	}, nil
}

// VerifySignature is for plugin.Plugin.
func (p *Plugin) VerifySignature(ctx context.Context, in *plugin.VerifySignatureRequest) (*plugin.VerifySignatureResponse, error) {
	if err := in.Validate(); err != nil {
		return nil, err
	}
	critical := in.Signature.CriticalAttributes
	switch {
	case in.ContractVersion != plugin.ContractVersion:
		return nil, plugin.NewUnsupportedContractVersionError(in.ContractVersion)
	case slices.Contains(in.TrustPolicy.TrustedIdentities, "*"):
		return nil, plugin.NewValidationError("name the signing profiles in trustedIdentities: AWS Signer's plugin takes no *")
	case critical.SigningScheme != scheme, critical.AuthenticSigningTime == nil, critical.AuthenticSigningTime.IsZero():
		return nil, plugin.NewUnsupportedError("a signature that is not of a signing authority")
	}
	out := &plugin.VerifySignatureResponse{
		VerificationResults: make(map[plugin.Capability]*plugin.VerificationResult),
		ProcessedAttributes: []any{attributeProfile, attributeJob, attributeAlias},
	}
	profile, err := text(critical, attributeProfile)
	if err != nil {
		return nil, err
	}
	for _, capability := range in.TrustPolicy.SignatureVerification {
		switch capability {
		case plugin.CapabilityTrustedIdentityVerifier:
			alias, _ := text(critical, attributeAlias)
			out.VerificationResults[capability] = trusted(in.TrustPolicy.TrustedIdentities, profile, alias)
		case plugin.CapabilityRevocationCheckVerifier:
			result, err := p.revoked(ctx, in.Signature, profile)
			if err != nil {
				return nil, err
			}
			out.VerificationResults[capability] = result
		default:
			return nil, plugin.NewValidationErrorf("%s is not a capability of AWS Signer's plugin", capability)
		}
	}
	return out, nil
}

// text returns a signed attribute.
func text(critical plugin.CriticalAttributes, name string) (string, error) {
	if value, ok := critical.ExtendedAttributes[name].(string); ok {
		return value, nil
	}
	return "", plugin.NewValidationErrorf("the signature has no attribute %s", name)
}

// trusted compares a signature's profile with those that the trust policy names: profiles, versions of
// profiles, and aliases.
func trusted(identities []string, profile, alias string) *plugin.VerificationResult {
	for _, identity := range identities {
		if names(identity, profile, alias) {
			return &plugin.VerificationResult{Success: true, Reason: "the signing profile is " + identity}
		}
	}
	return &plugin.VerificationResult{Reason: fmt.Sprintf("the signing profile %s is not trusted", profile)}
}

func names(identity, profile, alias string) bool {
	parsed, err := arn.Parse(identity)
	if err != nil || parsed.Service != "signer" {
		return false
	}
	switch parts := strings.Split(parsed.Resource, "/"); {
	case strings.HasPrefix(parsed.Resource, "/aliases/"):
		return alias != "" && strings.EqualFold(identity, alias)
	case strings.HasPrefix(parsed.Resource, "/aliased-signing-profiles/"):
		return strings.EqualFold(identity, profile)
	case !strings.HasPrefix(parsed.Resource, "/signing-profiles/"):
		return false
	case len(parts) == 3: // any version of a profile
		end := strings.LastIndex(profile, "/")
		return end >= 0 && strings.EqualFold(identity, profile[:end])
	case len(parts) == 4:
		return strings.EqualFold(identity, profile)
	}
	return false
}

// ask asks AWS Signer.
func (p *Plugin) ask(ctx context.Context, q Question) ([]string, error) {
	p.asked = true
	if p.api == nil {
		return nil, errors.New("AWS Signer cannot be asked from here")
	}
	found, err := p.api.Revoked(ctx, p.image, q)
	if err != nil {
		return nil, fmt.Errorf("ask AWS Signer: %w", err)
	}
	return found, nil
}

// revoked returns whether AWS Signer says that the signature is revoked. Its failure is noted, and fails the check.
func (p *Plugin) revoked(ctx context.Context, signature plugin.Signature, profile string) (*plugin.VerificationResult, error) {
	q := Question{ProfileVersion: profile, Signed: *signature.CriticalAttributes.AuthenticSigningTime}
	var err error
	if q.Job, err = text(signature.CriticalAttributes, attributeJob); err != nil {
		return nil, err
	}
	parsed, err := arn.Parse(profile)
	if err != nil || parsed.Region == "" {
		return nil, plugin.NewValidationErrorf("the signature's profile %s has no region", profile)
	}
	q.Region = parsed.Region
	if q.CertificateHashes, err = hashes(signature.CertificateChain); err != nil {
		return nil, err
	}
	found, err := p.ask(ctx, q)
	p.unknown = err
	return verdict(found, err), nil
}

// verdict is what AWS Signer's answer means. Without one the check fails, and the trust policy says whether that
// matters.
func verdict(revoked []string, err error) *plugin.VerificationResult {
	switch {
	case err != nil:
		return &plugin.VerificationResult{Reason: err.Error()}
	case len(revoked) > 0:
		return &plugin.VerificationResult{Reason: "AWS Signer says that this is revoked: " + strings.Join(revoked, ", ")}
	}
	return &plugin.VerificationResult{Success: true, Reason: "not revoked"}
}

// hashes returns the hash of what is signed of each certificate, followed by that of its issuer; the root
// is its own.
func hashes(chain [][]byte) ([]string, error) {
	each := make([]string, len(chain))
	for i, raw := range chain {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, plugin.NewValidationErrorf("certificate %d of the signature: %v", i+1, err)
		}
		sum := sha512.Sum384(cert.RawTBSCertificate)
		each[i] = hex.EncodeToString(sum[:])
	}
	pairs := make([]string, len(each))
	for i := range each {
		pairs[i] = each[i] + each[min(i+1, len(each)-1)]
	}
	return pairs, nil
}

// DescribeKey is for plugin.Plugin. Larder does not sign images.
func (p *Plugin) DescribeKey(context.Context, *plugin.DescribeKeyRequest) (*plugin.DescribeKeyResponse, error) {
	return nil, plugin.NewUnsupportedError("signing")
}

// GenerateSignature is for plugin.Plugin.
func (p *Plugin) GenerateSignature(context.Context, *plugin.GenerateSignatureRequest) (*plugin.GenerateSignatureResponse, error) {
	return nil, plugin.NewUnsupportedError("signing")
}

// GenerateEnvelope is for plugin.Plugin.
func (p *Plugin) GenerateEnvelope(context.Context, *plugin.GenerateEnvelopeRequest) (*plugin.GenerateEnvelopeResponse, error) {
	return nil, plugin.NewUnsupportedError("signing")
}
