package bucket

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// record says that a repository has a blob or manifest, or which manifest a tag of it names.
type record struct {
	Upstream   string        `json:"upstream"`
	Repository string        `json:"repository"`
	Tag        string        `json:"tag,omitempty"`
	Digest     digest.Digest `json:"digest"`
	Size       int64         `json:"size,omitempty"` // of a blob in bytes
	// Checked is when the upstream has said so.
	Checked time.Time `json:"checked"`
}

// id is what a record is about.
func (r record) id() record {
	id := record{Upstream: r.Upstream, Repository: r.Repository, Tag: r.Tag}
	if r.Tag == "" {
		id.Digest = r.Digest
	}
	return id
}

const (
	// maxRecord bounds a sealed record, in bytes.
	maxRecord = 4 << 10
	// purpose separates the key of seals from whatever else a key is used for. It changes with the form of records.
	purpose = "larder shared: records, version 1"
)

var errSeal = errors.New("it has no seal by a key of shared.key_file")

// sealKey returns the key of seals that belongs to a key of the nodes (RFC 5869).
func sealKey(key []byte) ([]byte, error) { return hkdf.Key(sha256.New, key, nil, purpose, sha256.Size) }

// seal returns a record with its HMAC before it.
func (r record) seal(key []byte) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return append(append(macOf(text, key), '\n'), text...), nil
}

// openRecord returns the record that was sealed with one of the keys, if it is about wanted.
func openRecord(sealed []byte, keys [][]byte, wanted record) (record, error) {
	mac, text, found := bytes.Cut(sealed, []byte("\n"))
	isSealed := false
	for _, key := range keys {
		isSealed = isSealed || found && hmac.Equal(mac, macOf(text, key))
	}
	if !isSealed {
		return record{}, errSeal
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return record{}, fmt.Errorf("read a sealed record: %w", err)
	}
	if r.id() != wanted.id() || r.Digest.Validate() != nil {
		return record{}, errors.New("it is about something else")
	}
	return r, nil
}

// macOf returns the HMAC of a text in hexadecimal digits.
func macOf(text, key []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	return []byte(hex.EncodeToString(mac.Sum(nil)))
}
