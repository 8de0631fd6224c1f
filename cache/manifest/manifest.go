// Package manifest checks manifests and indexes, and tells what they name. It reads a
// document from memory or from the file of a blob; it asks no upstream.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/records"
)

// MaxSize is the size of the largest manifest, in bytes. It is ECR's limit, and what podman
// and containerd accept.
const MaxSize = 4 << 20

// MaxChildren is how many blobs and manifests a manifest may name that a store keeps. Images
// have at most 127 layers, and artifacts some hundreds of files. The records of a manifest
// take some 400 bytes of the index for each of them.
const MaxChildren = 10_000

// Manifest is a manifest or an index. Raw may be read by everyone who has it, and must not
// be changed.
type Manifest struct {
	Digest    digest.Digest
	MediaType string
	Size      int64
	// Raw is the document, byte for byte; nil in the answer to a HEAD.
	Raw []byte
	// Done is called once when the bytes of an upstream's answer have been checked and
	// kept, or refused; nil for nothing. It is nil in a manifest of the store.
	Done func()
}

// TakeDone returns Done, or a function that does nothing, and leaves nil.
func (m *Manifest) TakeDone() func() {
	done := m.Done
	if m.Done = nil; done == nil {
		return func() {}
	}
	return done
}

// Child is a blob or a manifest that a document names.
type Child struct {
	Digest   digest.Digest
	Size     int64 // by the document, in bytes
	Manifest bool  // it is a manifest or an index itself
	Platform bool  // it is an image for a platform, rather than an attestation, a chart or an index of SOCI
}

// Parts are what a document names.
type Parts struct {
	Children []Child
	Subject  digest.Digest // the manifest that it refers to, if it is a referrer
}

var (
	// ErrMismatch says that a document does not match its digest.
	ErrMismatch = errors.New("the content does not match its digest")
	// ErrRefused says that a document is no manifest that a store may keep.
	ErrRefused = errors.New("the upstream's manifest is refused")
	// ErrTooMany says that a manifest names more than [MaxChildren] blobs and manifests. A
	// store serves it and keeps nothing of it.
	ErrTooMany = fmt.Errorf("it names more than %d blobs and manifests", MaxChildren)
	// ErrSchema1 refuses a manifest of a form that no current runtime can use. Unlike
	// other refusals it is certain that the upstream has this image.
	ErrSchema1 = fmt.Errorf("%w: it is of Docker's schema 1, which containerd and Docker do not pull any more; "+
		"build the image again, or convert it with \"skopeo copy --format oci\"", ErrRefused)
)

// Check ensures that a manifest matches its digest and is a manifest, sets its size and
// its media type, and returns its parts. It refuses a document that could be read as
// two things, or as something else than its type says (CVE-2021-41190).
//
// The media type follows from the document alone, so that the same bytes have the same
// type whichever upstream sent them. MediaType on entry is the upstream's word, its
// Content-Type; it must not be the type of another kind of manifest. Some registries send
// application/octet-stream, application/json, text/plain, or other letter case.
func (m *Manifest) Check() (Parts, error) {
	m.Size = int64(len(m.Raw))
	if m.Size > MaxSize {
		return Parts{}, fmt.Errorf("%w: %d bytes are more than %d", ErrRefused, m.Size, MaxSize)
	}
	if m.Digest.Algorithm().FromBytes(m.Raw) != m.Digest {
		return Parts{}, ErrMismatch
	}
	claimed := strings.ToLower(m.MediaType)
	doc, err := parse(bytes.NewReader(m.Raw))
	switch {
	case errors.Is(err, ErrSchema1):
		return Parts{}, err
	case err != nil:
		return Parts{}, fmt.Errorf("%w: %w", ErrRefused, err)
	case kinds[claimed] != none && kinds[claimed] != doc.kind():
		return Parts{}, fmt.Errorf("%w: its Content-Type is %q, and it is of type %q", ErrRefused, m.MediaType, doc.mediaType)
	}
	m.MediaType = doc.mediaType
	return Parts{doc.children.found, doc.subjectDigest()}, doc.children.err
}

// Record is what the index keeps of a manifest that was fetched at the given time and has
// these parts.
func (m *Manifest) Record(parts Parts, fetched time.Time) records.Blob {
	rec := records.Blob{Size: m.Size, Fetched: fetched, MediaType: m.MediaType, Subject: parts.Subject}
	for _, child := range parts.Children {
		rec.Children = append(rec.Children, child.Digest)
		if child.Platform {
			rec.Platforms = append(rec.Platforms, child.Digest)
		}
	}
	rec.NeedsAll = IsIndex(m.MediaType) && rec.Platforms == nil
	return rec
}

// TypeOf returns the media type of a document, or an error if it is no manifest.
func TypeOf(raw []byte) (string, error) {
	doc, err := parse(bytes.NewReader(raw))
	return doc.mediaType, err
}

// ReadFile reads and checks a manifest from the file of its blob.
func ReadFile(path string, d digest.Digest) (Manifest, Parts, error) {
	f, _, err := disk.OpenRegular(path, os.O_RDONLY)
	if err != nil {
		return Manifest{}, Parts{}, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return Manifest{}, Parts{}, err
	}
	m := Manifest{Digest: d, Raw: raw}
	parts, err := m.Check()
	return m, parts, err
}

// ReadRecord reads a manifest and its record from the file of its blob. The time at which it
// was fetched is that of the file.
func ReadRecord(path string, d digest.Digest) (Manifest, records.Blob, error) {
	m, parts, err := ReadFile(path, d)
	if err != nil {
		return Manifest{}, records.Blob{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Manifest{}, records.Blob{}, err
	}
	return m, m.Record(parts, info.ModTime()), nil
}
