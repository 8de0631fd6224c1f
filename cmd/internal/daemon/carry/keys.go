package carry

import (
	"context"

	"github.com/larder-registry/larder/cache/bundle/sign"
	"github.com/larder-registry/larder/config"
)

// maxKey is the size of the largest file of a key, in bytes.
const maxKey = 64 << 10

// OpenVerifier opens a public key: a PEM file, or one in AWS KMS by awskms://.
func OpenVerifier(ctx context.Context, key string) (*sign.Verifier, error) {
	if sign.IsKMS(key) {
		signer, err := sign.OpenKMS(ctx, key)
		if err != nil {
			return nil, err
		}
		return signer.Verifier(), nil
	}
	pem, err := config.ReadFile(key, maxKey)
	if err != nil {
		return nil, err
	}
	return sign.ParsePublicKey(key, pem)
}

// OpenVerifiers returns a function for [Options] that opens the named keys each time, so that
// they can be replaced while the daemon runs.
func OpenVerifiers(names func() []string) func(context.Context) ([]*sign.Verifier, error) {
	return func(ctx context.Context) ([]*sign.Verifier, error) {
		keys := names()
		all := make([]*sign.Verifier, len(keys))
		var err error
		for i, key := range keys {
			if all[i], err = OpenVerifier(ctx, key); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
}
