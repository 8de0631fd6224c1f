package signed

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"os"
	"strings"
	"sync"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/aws"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

// key is a public key. It may be used by several goroutines.
type key struct {
	name string

	mu       sync.Mutex // guards what follows
	verifier signature.Verifier
}

// maxKey bounds a file with a key, in bytes. RSA keys of 4096 bits have 800.
const maxKey = 64 << 10

// newKey reads a public key in PEM from a file. A key in AWS KMS (awskms://…) is read when it is
// needed: a node may start without a network.
func newKey(name string, basis hash.Hash) (*key, error) {
	fmt.Fprintf(basis, "key %s\n", name)
	k := &key{name: name}
	if strings.HasPrefix(name, aws.ReferenceScheme) {
		if err := aws.ValidReference(name); err != nil {
			return nil, fmt.Errorf("cosign's key %s: %w", name, err)
		}
		return k, nil
	}
	if scheme, _, ok := strings.Cut(name, "://"); ok {
		return nil, fmt.Errorf("cosign's key %s: keys are files, or in AWS KMS (awskms://…), not %s", name, scheme)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("cosign's key: %w", err)
	}
	if info.Size() > maxKey {
		return nil, fmt.Errorf("cosign's key %s: %d bytes are too many for a key", name, info.Size())
	}
	pem, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("cosign's key: %w", err)
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
	if err != nil {
		return nil, fmt.Errorf("cosign's key %s is no public key in PEM: %w", name, err)
	}
	// cosign signs with SHA-256 whatever the key in a file, unless it is told otherwise
	if k.verifier, err = signature.LoadVerifier(public, crypto.SHA256); err != nil {
		return nil, fmt.Errorf("cosign's key %s: %w", name, err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("cosign's key %s: %w", name, err)
	}
	fmt.Fprintf(basis, "%x\n", der)
	return k, nil
}

// load returns the verifier. It asks KMS once, and again after a failure.
func (k *key) load(ctx context.Context) (signature.Verifier, error) {
	k.mu.Lock()
	known := k.verifier
	k.mu.Unlock()
	if known != nil {
		return known, nil
	}
	fresh, err := readKMS(ctx, k.name)
	if err != nil {
		return nil, fmt.Errorf("read the public key %s: %w", k.name, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.verifier = fresh
	return fresh, nil
}

// readKMS reads a public key from AWS KMS, with the credentials that the AWS SDK finds. KMS signs with
// the hash that belongs to the key.
func readKMS(ctx context.Context, name string) (signature.Verifier, error) {
	client, err := aws.LoadSignerVerifier(ctx, name)
	if err != nil {
		return nil, withoutTexts(err)
	}
	public, err := client.PublicKey(options.WithContext(ctx))
	if err != nil {
		return nil, withoutTexts(err)
	}
	_, by, err := client.CryptoSigner(ctx, func(error) {})
	if err != nil {
		return nil, withoutTexts(err)
	}
	return signature.LoadVerifier(public, by.HashFunc())
}

// withoutTexts leaves out the messages of AWS's APIs: the one about a wrong signature repeats what was
// signed, and the session token is part of it.
func withoutTexts(err error) error {
	var answer interface {
		error
		ErrorCode() string
	}
	if errors.As(err, &answer) {
		return fmt.Errorf("AWS KMS answers %s", answer.ErrorCode())
	}
	return err
}
