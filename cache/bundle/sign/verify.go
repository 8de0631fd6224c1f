package sign

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"google.golang.org/protobuf/encoding/protojson"
)

var (
	// ErrUnsigned says that there is no signature.
	ErrUnsigned = errors.New("there is no signature")
	// ErrAltered says that a message is not the one that was signed.
	ErrAltered = errors.New("the content is not what was signed: it was altered")
	// ErrOtherKey says that the signature is by none of the keys.
	ErrOtherKey = errors.New("the signature is by none of the keys")
)

// Verifier verifies with a public key. It may be used by several goroutines.
type Verifier struct {
	name   string
	hint   string // SHA-256 of the key, in base64, as cosign has it
	public crypto.PublicKey
}

// ParsePublicKey reads a public key in PEM. The name is for errors.
func ParsePublicKey(name string, raw []byte) (*Verifier, error) {
	public, err := cryptoutils.UnmarshalPEMToPublicKey(raw)
	if err != nil {
		if block, _ := pem.Decode(raw); block != nil {
			err = fmt.Errorf("it is of the type %q", block.Type) // the text of the library ends with a question
		}
		return nil, fmt.Errorf("public key %s: %w: expected a public key in PEM, such as \"cosign generate-key-pair\" makes", name, err)
	}
	return newVerifier(name, public)
}

func newVerifier(name string, public crypto.PublicKey) (*Verifier, error) {
	if _, err := signature.GetDefaultPublicKeyDetails(public); err != nil {
		return nil, fmt.Errorf("key %s: %w: use ECDSA P-256, P-384 or P-521, RSA of 2048, 3072 or 4096 bits, or Ed25519", name, err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	sum := sha256.Sum256(der)
	return &Verifier{name, base64.StdEncoding.EncodeToString(sum[:]), public}, nil
}

// String returns the name of the key and its fingerprint.
func (v *Verifier) String() string { return v.name + " (SHA256:" + v.hint + ")" }

// PEM returns the public key, which [ParsePublicKey] and cosign read.
func (v *Verifier) PEM() ([]byte, error) { return cryptoutils.MarshalPublicKeyToPEM(v.public) }

// Verify verifies the signature of a message, a sigstore bundle in JSON, by any of the keys,
// and returns the key that signed. Certificates and log entries in the bundle are not looked
// at. The error is [ErrUnsigned], [ErrAltered] or [ErrOtherKey], or says why the signature
// cannot be read.
func Verify(message, sigstoreBundle []byte, keys ...*Verifier) (*Verifier, error) {
	if len(bytes.TrimSpace(sigstoreBundle)) == 0 {
		return nil, ErrUnsigned
	}
	var b bundlepb.Bundle
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(sigstoreBundle, &b); err != nil {
		return nil, fmt.Errorf("the signature is no sigstore bundle: %w", err)
	}
	signed := b.GetMessageSignature()
	switch {
	case !strings.HasPrefix(b.GetMediaType(), "application/vnd.dev.sigstore.bundle"):
		return nil, fmt.Errorf("the signature is no sigstore bundle: its mediaType is %.100q", b.GetMediaType())
	case signed == nil:
		return nil, errors.New(`the signature is not one of a file: make it with "cosign sign-blob"`)
	}
	hash, err := hashOf(signed.GetMessageDigest())
	if err != nil {
		return nil, err
	}
	if want := signed.GetMessageDigest().GetDigest(); want != nil {
		h := hash.New()
		h.Write(message)
		if !bytes.Equal(h.Sum(nil), want) {
			return nil, ErrAltered
		}
	}
	var tried []string
	for _, key := range keys {
		if key.verify(message, signed.GetSignature(), hash) {
			return key, nil
		}
		tried = append(tried, key.String())
	}
	by := ""
	if hint := b.GetVerificationMaterial().GetPublicKey().GetHint(); isHint(hint) {
		by = "; it says that it is by the key SHA256:" + hint
	}
	return nil, fmt.Errorf("%w: %s%s", ErrOtherKey, strings.Join(tried, ", "), by)
}

// isHint reports whether a text has the form of [Verifier]'s hint. Anyone may have written it,
// and errors go to terminals.
func isHint(s string) bool {
	sum, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil && len(sum) == sha256.Size && !strings.ContainsAny(s, "\r\n")
}

// hashOf returns which hash was signed. cosign leaves the digest out for Ed25519, which signs
// the whole message.
func hashOf(digest *commonpb.HashOutput) (crypto.Hash, error) {
	if digest.GetDigest() == nil {
		return crypto.SHA256, nil
	}
	for hash, algorithm := range algorithms {
		if digest.GetAlgorithm() == algorithm {
			return hash, nil
		}
	}
	return 0, fmt.Errorf("the signature has a digest of kind %v, which is not supported", digest.GetAlgorithm())
}

// verify reports whether a signature is by this key. cosign signs the hash with an Ed25519
// key if the signature goes to a log, and the message otherwise.
func (v *Verifier) verify(message, signed []byte, hash crypto.Hash) bool {
	opts := [][]signature.LoadOption{{options.WithHash(hash)}}
	if _, ok := v.public.(ed25519.PublicKey); ok {
		opts = append(opts, []signature.LoadOption{options.WithED25519ph()})
	}
	for _, o := range opts {
		verifier, err := signature.LoadVerifierWithOpts(v.public, o...)
		if err == nil && verifier.VerifySignature(bytes.NewReader(signed), bytes.NewReader(message)) == nil {
			return true
		}
	}
	return false
}
