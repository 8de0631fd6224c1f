// Package secret signs tokens, object names and URLs of the fake ECR with one key.
package secret

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Key is a secret key. Equal keys, also of different processes, accept each
// other's codes.
type Key string

// Sign returns a code, in hex, that only holders of the key can compute for these
// parts. The first part names the kind of thing that is signed, so that the code of
// one kind is never valid for another. No part may contain a newline.
func (k Key) Sign(parts ...string) string {
	mac := hmac.New(sha256.New, []byte(k))
	mac.Write([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(mac.Sum(nil))
}

// Valid reports whether code is what Sign returns for these parts.
func (k Key) Valid(code string, parts ...string) bool {
	return hmac.Equal([]byte(code), []byte(k.Sign(parts...)))
}
