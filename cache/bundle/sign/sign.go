// Package sign signs the description of a bundle, and verifies the signature. A signature is
// a sigstore bundle as cosign makes and verifies it with a key: there is no certificate, no
// log, and no network but for a key in KMS. It is verified by
//
//	cosign verify-blob --bundle larder-bundle.json.sigstore.json --key KEY.pub --insecure-ignore-tlog larder-bundle.json
//
// Keys are ECDSA keys of P-256, P-384 and P-521, RSA keys of 2048, 3072 and 4096 bits, and
// Ed25519 keys.
package sign

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"

	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"google.golang.org/protobuf/encoding/protojson"
)

// mediaType is that of the bundles that are made.
const mediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// Signer signs with a private key. It may be used by several goroutines.
type Signer struct {
	signer signature.Signer
	// hash is what cosign takes for every key in a file, unless it is told otherwise. KMS
	// decides by the key.
	hash     crypto.Hash
	verifier *Verifier
}

// ParsePrivateKey reads a private key in PEM: as cosign writes it, PKCS#8, or the form of its
// kind. The name is for errors. password is called if the key is encrypted; cosign asks for
// an empty password too.
func ParsePrivateKey(name string, pem []byte, password func() ([]byte, error)) (*Signer, error) {
	encrypted := false
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(pem, func(bool) ([]byte, error) {
		encrypted = true
		return password()
	})
	if err != nil && encrypted { // it is a private key: the password is missing or wrong
		return nil, fmt.Errorf("private key %s: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("private key %s: %w: expected a private key in PEM, such as \"cosign generate-key-pair\" makes", name, err)
	}
	signer, err := signature.LoadSigner(private, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("private key %s: %w", name, err)
	}
	public, err := signer.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("private key %s: %w", name, err)
	}
	verifier, err := newVerifier(name, public)
	if err != nil {
		return nil, err
	}
	return &Signer{signer, crypto.SHA256, verifier}, nil
}

// Verifier returns the public key.
func (s *Signer) Verifier() *Verifier { return s.verifier }

// Sign signs a message, and returns a sigstore bundle in JSON.
func (s *Signer) Sign(ctx context.Context, message []byte) ([]byte, error) {
	signed, err := s.signer.SignMessage(bytes.NewReader(message), options.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("signing with %s: %w", s.verifier.name, withoutSecrets(err))
	}
	hash := s.hash.New()
	hash.Write(message)
	raw, err := protojson.Marshal(&bundlepb.Bundle{
		MediaType: mediaType,
		VerificationMaterial: &bundlepb.VerificationMaterial{
			Content: &bundlepb.VerificationMaterial_PublicKey{PublicKey: &commonpb.PublicKeyIdentifier{Hint: s.verifier.hint}},
		},
		Content: &bundlepb.Bundle_MessageSignature{MessageSignature: &commonpb.MessageSignature{
			MessageDigest: &commonpb.HashOutput{Algorithm: algorithms[s.hash], Digest: hash.Sum(nil)},
			Signature:     signed,
		}},
	})
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer // protojson varies its spaces on purpose
	if err := json.Compact(&compact, raw); err != nil {
		return nil, err
	}
	if _, err := Verify(message, compact.Bytes(), s.verifier); err != nil {
		return nil, errors.Join(fmt.Errorf("the signature of %s is not of a kind that can be verified", s.verifier.name), err)
	}
	return compact.Bytes(), nil
}

// algorithms are the names of hashes in a sigstore bundle.
var algorithms = map[crypto.Hash]commonpb.HashAlgorithm{
	crypto.SHA256: commonpb.HashAlgorithm_SHA2_256,
	crypto.SHA384: commonpb.HashAlgorithm_SHA2_384,
	crypto.SHA512: commonpb.HashAlgorithm_SHA2_512,
}
