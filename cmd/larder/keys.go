package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/larder-registry/larder/cache/bundle/sign"
)

// passwordVariable has the password of an encrypted key, as for cosign.
const passwordVariable = "COSIGN_PASSWORD"

// openSigner opens a private key: a PEM file, or one in AWS KMS.
func openSigner(p *invocation, key string) (*sign.Signer, error) {
	if sign.IsKMS(key) {
		return sign.OpenKMS(p.ctx, key)
	}
	pem, err := os.ReadFile(key)
	if err != nil {
		return nil, err
	}
	given := false
	signer, err := sign.ParsePrivateKey(key, pem, func() ([]byte, error) {
		for _, entry := range p.environ() {
			if password, ok := strings.CutPrefix(entry, passwordVariable+"="); ok {
				given = true
				return []byte(password), nil
			}
		}
		return nil, errors.New("it is encrypted: set " + passwordVariable)
	})
	if err != nil && given {
		return nil, fmt.Errorf("%w: %s has another password", err, passwordVariable)
	}
	return signer, err
}
