package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/larder-registry/larder/proxy/wholefile"
)

// Key is the key of the hashes of credentials.
type Key [32]byte

// NewKey returns a random key, which makes all that an earlier process remembered unknown.
func NewKey() (k Key) {
	_, _ = rand.Read(k[:]) // never fails
	return k
}

// id tells keys apart in a file with hashes.
func (k Key) id() string {
	sum := sha256.Sum256(k[:])
	return hex.EncodeToString(sum[:8])
}

// OpenKey returns the key in a file, which it makes with a random key if it does not exist. The
// file must be readable by its owner alone.
func OpenKey(path string) (Key, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return makeKey(path)
	case err != nil:
		return Key{}, fmt.Errorf("open the key of access decisions: %w", err)
	case info.Mode().Perm()&0o077 != 0:
		return Key{}, fmt.Errorf("open the key of access decisions: others may read %s: chmod 600 it", path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return Key{}, fmt.Errorf("open the key of access decisions: %w", err)
	}
	var k Key
	if n, err := hex.Decode(k[:], trimmed(raw, 2*len(k))); err != nil || n != len(k) {
		return Key{}, fmt.Errorf("open the key of access decisions: %s does not have a key of 64 hex digits: remove it, and a new one is made", path)
	}
	return k, nil
}

// trimmed returns a text without the newline at its end, and nothing if it is not n bytes long.
func trimmed(raw []byte, n int) []byte {
	if len(raw) == n+1 && raw[n] == '\n' {
		raw = raw[:n]
	}
	if len(raw) != n {
		return nil
	}
	return raw
}

// makeKey writes a random key to a new file. The file is complete whenever it exists.
func makeKey(path string) (Key, error) {
	k := NewKey()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = wholefile.Write(path, []byte(hex.EncodeToString(k[:])+"\n"), 0o600)
	}
	if err != nil {
		return Key{}, fmt.Errorf("make a key for access decisions: %w", err)
	}
	return k, nil
}
