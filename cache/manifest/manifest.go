// Package manifest checks manifests and indexes, and tells what they name. It reads a
// document from memory or from the file of a blob; it asks no upstream.
package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/records"
)

// MaxSize is the size of the largest manifest, in bytes. It is ECR's limit, and what podman
// and containerd accept.
const MaxSize = 4 << 20

// Manifest is a manifest or an index. Raw may be read by everyone who has it, and must not
// be changed.
type Manifest struct {
	Digest    digest.Digest
	MediaType string
	Size      int64
	// Raw is the document, byte for byte; nil in the answer to a HEAD.
	Raw []byte
}

// Child is a blob or a manifest that a document names.
type Child struct {
	Digest   digest.Digest
	Size     int64 // by the document, in bytes
	Manifest bool  // it is a manifest or an index itself
}

var (
	// ErrMismatch says that a document does not match its digest.
	ErrMismatch = errors.New("the content does not match its digest")
	// ErrRefused says that a document is no manifest that a store may keep.
	ErrRefused = errors.New("the upstream's manifest is refused")
)

// document is what of a manifest or an index the store looks at.
type document struct {
	MediaType string       `json:"mediaType"`
	Config    *descriptor  `json:"config"`
	Layers    []descriptor `json:"layers"`
	Manifests []descriptor `json:"manifests"`
	Blobs     []descriptor `json:"blobs"`
	Subject   *descriptor  `json:"subject"`
}

type descriptor struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	URLs   []string      `json:"urls"`
}

// Check ensures that a manifest is what it claims to be, fills in its size and a missing
// media type, and returns what it names. It refuses a document that could be read as two
// things, or as something else than its type says (CVE-2021-41190).
func (m *Manifest) Check() ([]Child, error) {
	m.Size = int64(len(m.Raw))
	if m.Size > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", ErrRefused, m.Size, MaxSize)
	}
	if m.Digest.Algorithm().FromBytes(m.Raw) != m.Digest {
		return nil, ErrMismatch
	}
	var doc document
	if err := json.Unmarshal(m.Raw, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if m.MediaType == "" {
		m.MediaType = doc.MediaType
	}
	switch {
	case m.MediaType == "":
		return nil, fmt.Errorf("%w: it has no media type", ErrRefused)
	case doc.MediaType != "" && doc.MediaType != m.MediaType:
		return nil, fmt.Errorf("%w: its Content-Type is %q and its mediaType %q", ErrRefused, m.MediaType, doc.MediaType)
	case doc.Manifests != nil && (doc.Layers != nil || doc.Config != nil):
		return nil, fmt.Errorf("%w: it is both an index and a manifest", ErrRefused)
	}
	return doc.children()
}

// children lists what a document names and a registry holds. Layers with URLs live
// elsewhere, and are never fetched from there (CVE-2020-15157).
func (d *document) children() ([]Child, error) {
	var all []Child
	add := func(manifest bool, descriptors ...descriptor) {
		for _, c := range descriptors {
			if len(c.URLs) == 0 {
				all = append(all, Child{Digest: c.Digest, Size: c.Size, Manifest: manifest})
			}
		}
	}
	add(false, d.Layers...)
	add(true, d.Manifests...)
	add(false, d.Blobs...)
	if d.Config != nil {
		add(false, *d.Config)
	}
	for _, c := range all {
		if err := c.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("%w: it names %q: %w", ErrRefused, c.Digest, err)
		}
	}
	return all, nil
}

// Record is what the index keeps of a manifest that was fetched at the given time and has
// these children.
func (m *Manifest) Record(children []Child, fetched time.Time) records.Blob {
	rec := records.Blob{Size: m.Size, Fetched: fetched, MediaType: m.MediaType, Subject: subjectOf(m.Raw)}
	for _, child := range children {
		rec.Children = append(rec.Children, child.Digest)
	}
	return rec
}

// subjectOf returns the digest of a manifest's subject, or nothing.
func subjectOf(raw []byte) digest.Digest {
	var doc document
	if json.Unmarshal(raw, &doc) != nil || doc.Subject == nil || doc.Subject.Digest.Validate() != nil {
		return ""
	}
	return doc.Subject.Digest
}

// ReadFile reads and checks a manifest from the file of its blob. An empty media type means
// that it is not known.
func ReadFile(path string, d digest.Digest, mediaType string) (Manifest, []Child, error) {
	f, err := os.Open(path)
	if err != nil {
		return Manifest{}, nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return Manifest{}, nil, err
	}
	m := Manifest{Digest: d, MediaType: mediaType, Raw: raw}
	if m.MediaType == "" {
		m.MediaType = typeOf(raw)
	}
	children, err := m.Check()
	return m, children, err
}

// ReadRecord reads a manifest and its record from the file of its blob. The time at which it
// was fetched is that of the file.
func ReadRecord(path string, d digest.Digest, mediaType string) (Manifest, records.Blob, error) {
	m, children, err := ReadFile(path, d, mediaType)
	if err != nil {
		return Manifest{}, records.Blob{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Manifest{}, records.Blob{}, err
	}
	return m, m.Record(children, info.ModTime()), nil
}

// typeOf tells the media type of a document. One that does not say so itself is of the OCI:
// Docker's must.
func typeOf(raw []byte) string {
	var doc document
	if json.Unmarshal(raw, &doc) != nil {
		return ""
	}
	switch {
	case doc.MediaType != "":
		return doc.MediaType
	case doc.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case doc.Config != nil && doc.Layers != nil:
		return ocispec.MediaTypeImageManifest
	}
	return ""
}

// IsIndex reports whether a media type is that of an index.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == "application/vnd.docker.distribution.manifest.list.v2+json"
}
