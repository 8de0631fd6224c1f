package main

import (
	"errors"
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
	return sign.ParsePrivateKey(key, pem, func() ([]byte, error) {
		for _, entry := range p.environ() {
			if password, ok := strings.CutPrefix(entry, passwordVariable+"="); ok {
				return []byte(password), nil
			}
		}
		return nil, errors.New("it is encrypted: set " + passwordVariable)
	})
}
