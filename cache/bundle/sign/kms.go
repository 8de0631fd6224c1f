package sign

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/smithy-go"
	"github.com/sigstore/sigstore/pkg/signature/kms/aws"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

// IsKMS reports whether a key is one in AWS KMS: awskms://[ENDPOINT]/ID, where ID is a key's
// id, ARN or alias.
func IsKMS(key string) bool { return strings.HasPrefix(key, aws.ReferenceScheme) }

// OpenKMS reads the public key of a key in AWS KMS, with the credentials that the AWS SDK
// finds. Signing asks KMS, verifying does not.
//
// KMS signs with SHA-384 for P-384, and SHA-512 for P-521. cosign needs
// --signature-digest-algorithm then.
func OpenKMS(ctx context.Context, key string) (*Signer, error) {
	fail := func(err error) (*Signer, error) { return nil, fmt.Errorf("key %s: %w", key, withoutSecrets(err)) }
	client, err := aws.LoadSignerVerifier(ctx, key)
	if err != nil {
		return fail(err)
	}
	public, err := client.PublicKey(options.WithContext(ctx))
	if err != nil {
		return fail(err)
	}
	_, hash, err := client.CryptoSigner(ctx, func(error) {})
	if err != nil {
		return fail(err)
	}
	if _, ok := algorithms[hash.HashFunc()]; !ok {
		return fail(errors.New("it signs with an algorithm that is not supported"))
	}
	verifier, err := newVerifier(key, public)
	if err != nil {
		return nil, err
	}
	return &Signer{client, hash.HashFunc(), verifier}, nil
}

// withoutSecrets leaves out the texts of AWS's APIs, except those that help. The text about a
// wrong signature repeats what was signed, and the session token is part of it.
func withoutSecrets(err error) error {
	var answer smithy.APIError
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.ErrorCode() {
	case "AccessDeniedException", "NotFoundException", "DisabledException", "InvalidKeyUsageException", "KMSInvalidStateException":
		return fmt.Errorf("AWS answers %s: %s", answer.ErrorCode(), answer.ErrorMessage())
	}
	return fmt.Errorf("AWS answers %s", answer.ErrorCode())
}
