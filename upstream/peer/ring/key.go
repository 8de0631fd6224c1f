package ring

import (
	"bufio"
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
)

const (
	// KeySize is the size of a key in bytes: that of SHA-256, and of an AES-256 key.
	KeySize = 32
	// maxKeys is how many keys a ring may have: one, and its successor while keys are replaced.
	maxKeys = 2
	// maxFile bounds a key file, in bytes: two keys, and room for comments.
	maxFile = 64 << 10
)

// Key is a secret that all nodes of a cluster share. Its zero value is no key.
type Key [KeySize]byte

// NewKey returns a random key.
func NewKey() Key {
	var k Key
	_, _ = rand.Read(k[:]) // never fails
	return k
}

// Encode returns the key as a line of a key file has it. It is a secret.
func (k Key) Encode() string { return base64.StdEncoding.EncodeToString(k[:]) }

// String hides the key, so that no log has it.
func (k Key) String() string { return "(a key)" }

// GoString hides the key as String does.
func (k Key) GoString() string { return k.String() }

// derive returns a key for one purpose, from which neither the key nor that of another purpose
// can be found (RFC 5869).
func (k Key) derive(purpose string) []byte {
	derived, err := hkdf.Key(sha256.New, k[:], nil, purpose, KeySize)
	if err != nil {
		panic(err) // only for a length that is too large
	}
	return derived
}

// ParseKeys reads a key file: one key a line, in base64, the one to send with first. Empty lines
// and lines that begin with # do not count. No error repeats any of the text.
func ParseKeys(text []byte) ([]Key, error) {
	var keys []Key
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(raw) != KeySize {
			return nil, fmt.Errorf("line %d is not a key: \"larder peers key\" makes one", n)
		}
		key := Key(raw)
		if slices.Contains(keys, key) {
			return nil, fmt.Errorf("line %d repeats a key", n)
		}
		keys = append(keys, key)
	}
	switch {
	case lines.Err() != nil:
		return nil, errors.New("it has a line that is too long for a key")
	case len(keys) == 0:
		return nil, errors.New("it has no key: \"larder peers key\" makes one")
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("it has %d keys, and %d are the most: remove those that no node sends with any more", len(keys), maxKeys)
	}
	return keys, nil
}

// ReadKeys reads a key file (see [ParseKeys]). The file must be one that only its owner may write,
// and that only the owner and the group may read: Kubernetes gives the files of secrets to a group.
func ReadKeys(path string) ([]Key, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's keys: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the cluster's keys: %w", err)
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return nil, fmt.Errorf("read the cluster's keys: %s is not a file", path)
	case mode.Perm()&0o027 != 0:
		return nil, fmt.Errorf("read the cluster's keys: others than its owner may read or write %s (mode %04o): \"chmod 0600 %s\": %w",
			path, mode.Perm(), path, fs.ErrPermission)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("read the cluster's keys: %s is too large for a key file", path)
	}
	text := make([]byte, info.Size())
	n, err := file.ReadAt(text, 0)
	if int64(n) < info.Size() {
		return nil, fmt.Errorf("read the cluster's keys: %w", err)
	}
	keys, err := ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's keys from %s: %w", path, err)
	}
	return keys, nil
}

// Ring is the keys that a node has. It is safe for concurrent use.
type Ring struct {
	mu   sync.Mutex // guards what follows
	keys []Key
}

// New returns a ring with some keys, of which there is at least one.
func New(keys ...Key) *Ring { return &Ring{keys: slices.Clone(keys)} }

// Change replaces the keys, and reports whether they are others than before. Connections that have
// proved a key stay.
func (r *Ring) Change(keys []Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Equal(r.keys, keys) {
		return false
	}
	r.keys = slices.Clone(keys)
	return true
}

func (r *Ring) all() []Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys
}

// Gossip returns keys for the encryption of gossip, derived from those of the ring and in their
// order.
func (r *Ring) Gossip() [][]byte {
	var keys [][]byte
	for _, k := range r.all() {
		keys = append(keys, k.derive("larder peers: gossip"))
	}
	return keys
}
