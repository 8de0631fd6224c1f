package records

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
)

// What a snapshot may contain. Its writer leaves out what these checks refuse, and its reader
// uses the same checks: so a snapshot is read as it was written, and a record that is not
// valid costs nothing but itself.
const (
	// maxString bounds, in bytes, the names, keys and values of a snapshot.
	maxString = 64 << 10
	// maxKey bounds, in bytes, the keys that are made of them: Badger takes none of 64 KiB.
	maxKey = 65_000
)

func validText(length int) bool { return length <= maxString }

func validKey(length int) bool { return 0 < length && length <= maxKey }

// validDigest reports whether the syntax of a snapshot has a place for a digest: there are
// registries that serve others than sha256 and sha512.
func validDigest(d digest.Digest) bool {
	return disk.CheckDigest(d) == nil && (d.Algorithm() == digest.SHA256 || d.Algorithm() == digest.SHA512)
}

// validTime reports whether a time, in seconds since 1970, can be written as JSON.
func validTime(seconds int64) bool {
	year := time.Unix(seconds, 0).UTC().Year()
	return 0 <= year && year <= 9999
}

// validValue reports whether a record can be copied.
func validValue(raw []byte) bool { return validText(len(raw)) && json.Valid(raw) }
