// Package bundletest is for tests that need images to carry, and the bundles of them.
package bundletest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/bundle"
)

// Store has blobs and manifests in memory.
type Store map[digest.Digest][]byte

// Add adds a blob, and returns a descriptor of it.
func (s Store) Add(mediaType string, content []byte) ocispec.Descriptor {
	d := digest.FromBytes(content)
	s[d] = content
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

func (s Store) addJSON(mediaType string, v any) ocispec.Descriptor {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return s.Add(mediaType, raw)
}

// AddImage adds an image for a platform of linux, with layers of this content.
func (s Store) AddImage(architecture string, layers ...string) ocispec.Descriptor {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{},
	}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: architecture}}
	for _, layer := range layers {
		m.Layers = append(m.Layers, s.Add(ocispec.MediaTypeImageLayer, []byte(layer)))
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromString(layer))
	}
	m.Config = s.addJSON(ocispec.MediaTypeImageConfig, config)
	d := s.addJSON(ocispec.MediaTypeImageManifest, m)
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: architecture}
	return d
}

// AddIndex adds an index of manifests.
func (s Store) AddIndex(manifests ...ocispec.Descriptor) ocispec.Descriptor {
	return s.addJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
	})
}

// AddReferrer adds a referrer of a manifest, with one layer of this content.
func (s Store) AddReferrer(subject ocispec.Descriptor, artifactType, layer string) ocispec.Descriptor {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config:  s.Add(ocispec.MediaTypeEmptyJSON, []byte("{}")),
		Layers:  []ocispec.Descriptor{s.Add("text/plain", []byte(layer))},
		Subject: &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
	}
	return s.addJSON(ocispec.MediaTypeImageManifest, m)
}

// Manifest is for [bundle.Options] and for [bundle.Layout.Resolve].
func (s Store) Manifest(d digest.Digest) ([]byte, error) {
	raw, ok := s[d]
	if !ok {
		return nil, fmt.Errorf("%s: %w", d, fs.ErrNotExist)
	}
	return raw, nil
}

// Has is for [bundle.Layout.Resolve].
func (s Store) Has(d digest.Digest) bool { return s[d] != nil }

// Open is a [bundle.Open].
func (s Store) Open(_ context.Context, b bundle.Blob) (io.ReadCloser, error) {
	raw, err := s.Manifest(b.Digest)
	return io.NopCloser(bytes.NewReader(raw)), err
}

// Pack returns a part of a bundle.
func (s Store) Pack(t testing.TB, p *bundle.Plan, part int, signature []byte) []byte {
	t.Helper()
	planned, err := p.Part(part, signature)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := planned.Write(t.Context(), &buf, 0, s.Open); err != nil {
		t.Fatal(err)
	}
	if int64(buf.Len()) != planned.Size() {
		t.Errorf("part %d has %d bytes, and %d were planned", part, buf.Len(), planned.Size())
	}
	return buf.Bytes()
}

// Unpack reads a bundle or a layout to its end, adds its blobs, verified, and returns what it
// says about its images.
func (s Store) Unpack(r *bundle.Reader) (*bundle.Layout, error) {
	for {
		b, err := r.Next()
		if err == io.EOF {
			return r.Layout()
		}
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(bundle.Verify(b, r))
		if err != nil {
			return nil, err
		}
		s[b.Digest] = content
	}
}
