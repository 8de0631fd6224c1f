package disk

import "github.com/opencontainers/go-digest"

// CheckDigest is [digest.Digest.Validate], at a hundredth of its cost for the digests
// that registries use.
func CheckDigest(d digest.Digest) error {
	const prefix, length = "sha256:", len("sha256:") + 64
	if len(d) != length || d[:len(prefix)] != prefix {
		return d.Validate()
	}
	for _, c := range []byte(d[len(prefix):]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return d.Validate() // which says why
		}
	}
	return nil
}
