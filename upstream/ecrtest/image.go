package ecrtest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ArtifactType is the type of the artifact that [Image.Artifact] adds.
const ArtifactType = "application/vnd.example.note.v1"

// Image describes an OCI image. All its platforms have the same layers.
type Image struct {
	Layers []Layer
	// Platforms are in the form os/architecture, such as "linux/arm64"; empty means
	// linux/amd64. More than one are listed by an index.
	Platforms []string
	Cmd       []string // the command of a container, or empty
	Artifact  bool     // also add an artifact whose subject is the image
}

// Layer is one layer of an image.
type Layer struct {
	Content   Content
	MediaType string        // that of an uncompressed OCI layer if empty
	DiffID    digest.Digest // of the uncompressed tar; the digest of Content if empty
}

// Added describes an image that AddImage added.
type Added struct {
	Root      ocispec.Descriptor   // of the tag: the index if there is one, or else the manifest
	Manifests []ocispec.Descriptor // of the platforms, in their order
	Blobs     []ocispec.Descriptor // that a pull of all platforms fetches, each once
	Size      int64                // of Blobs in total, in bytes
	Artifact  ocispec.Descriptor   // the manifest of the artifact, if Image.Artifact is set
}

// adder adds blobs and manifests to repositories.
type adder interface {
	AddBlob(repo string, c Content) (ocispec.Descriptor, error)
	AddManifest(repo, tag, mediaType string, raw []byte) (ocispec.Descriptor, error)
}

// addImage adds an image with its blobs to a repository, and moves tag to it unless
// tag is empty. If tagReferrers is set, the artifact is listed under the tag that
// clients use for referrers where the registry has no /referrers/.
func addImage(to adder, repo, tag string, img Image, tagReferrers bool) (*Added, error) {
	b := builder{to: to, repo: repo, layers: []ocispec.Descriptor{}, diffIDs: []digest.Digest{}}
	if err := b.addLayers(img.Layers); err != nil {
		return nil, fmt.Errorf("adding image %s:%s: %w", repo, tag, err)
	}
	platforms := img.Platforms
	if len(platforms) == 0 {
		platforms = []string{"linux/amd64"}
	}
	manifestTag, indexed := tag, len(platforms) > 1
	if indexed {
		manifestTag = ""
	}
	for _, p := range platforms {
		if err := b.addPlatform(manifestTag, p, img.Cmd); err != nil {
			return nil, fmt.Errorf("adding image %s:%s for %s: %w", repo, tag, p, err)
		}
	}
	if indexed {
		if err := b.addIndex(tag); err != nil {
			return nil, fmt.Errorf("adding image %s:%s: %w", repo, tag, err)
		}
	}
	if img.Artifact {
		if err := b.addArtifact(); err != nil {
			return nil, fmt.Errorf("adding the artifact of image %s:%s: %w", repo, tag, err)
		}
		if tagReferrers {
			if err := b.addReferrersTag(); err != nil {
				return nil, fmt.Errorf("listing the artifact of image %s:%s: %w", repo, tag, err)
			}
		}
	}
	return &b.added, nil
}

// builder adds one image. Its methods are called in the order they are written in.
type builder struct {
	to      adder
	repo    string
	layers  []ocispec.Descriptor
	diffIDs []digest.Digest
	added   Added
}

func (b *builder) addLayers(layers []Layer) error {
	for i, l := range layers {
		mediaType := l.MediaType
		if mediaType == "" {
			mediaType = ocispec.MediaTypeImageLayer
		}
		desc, err := b.addBlob(l.Content, mediaType)
		if err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		diffID := l.DiffID
		if diffID == "" {
			diffID = desc.Digest
		}
		b.layers = append(b.layers, desc)
		b.diffIDs = append(b.diffIDs, diffID)
	}
	return nil
}

// addBlob adds a blob of the image. It counts each blob once.
func (b *builder) addBlob(c Content, mediaType string) (ocispec.Descriptor, error) {
	desc, err := b.to.AddBlob(b.repo, c)
	if err != nil {
		return desc, err
	}
	desc.MediaType = mediaType
	for _, known := range b.added.Blobs {
		if known.Digest == desc.Digest {
			return desc, nil
		}
	}
	b.added.Blobs = append(b.added.Blobs, desc)
	b.added.Size += desc.Size
	return desc, nil
}

// addPlatform adds the manifest of a platform and its configuration. The manifest is
// the root until addIndex.
func (b *builder) addPlatform(tag, name string, cmd []string) error {
	os, arch, ok := strings.Cut(name, "/")
	if !ok {
		return fmt.Errorf("%q is not os/architecture", name)
	}
	platform := ocispec.Platform{OS: os, Architecture: arch}
	raw, err := json.Marshal(ocispec.Image{
		Platform: platform,
		Config: ocispec.ImageConfig{
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Cmd: cmd,
		},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: b.diffIDs},
	})
	if err != nil {
		return fmt.Errorf("encoding the configuration: %w", err)
	}
	config, err := b.addBlob(Bytes(raw), ocispec.MediaTypeImageConfig)
	if err != nil {
		return err
	}
	desc, err := b.addManifest(tag, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    b.layers,
	})
	if err != nil {
		return err
	}
	b.added.Root = desc
	desc.Platform = &platform
	b.added.Manifests = append(b.added.Manifests, desc)
	return nil
}

// addIndex adds an index of the platforms, which becomes the root.
func (b *builder) addIndex(tag string) (err error) {
	b.added.Root, err = b.addManifest(tag, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: b.added.Manifests,
	})
	return err
}

// addArtifact adds a note about the image. Its blobs do not count as the image's.
func (b *builder) addArtifact() error {
	note := []byte("A note about " + b.added.Root.Digest.String() + ".\n")
	layer, err := b.to.AddBlob(b.repo, Bytes(note))
	if err != nil {
		return err
	}
	layer.MediaType = "text/plain"
	if _, err := b.to.AddBlob(b.repo, Bytes(ocispec.DescriptorEmptyJSON.Data)); err != nil {
		return err
	}
	b.added.Artifact, err = b.addManifest("", ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: ArtifactType,
		Config:       ocispec.DescriptorEmptyJSON,
		Layers:       []ocispec.Descriptor{layer},
		Subject:      &b.added.Root,
	})
	return err
}

// addReferrersTag lists the artifact in an index under the tag of the distribution
// specification's "referrers tag schema".
func (b *builder) addReferrersTag() error {
	listed := b.added.Artifact
	listed.ArtifactType = ArtifactType
	root := b.added.Root.Digest
	_, err := b.addManifest(root.Algorithm().String()+"-"+root.Encoded(), ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{listed},
	})
	return err
}

func (b *builder) addManifest(tag, mediaType string, doc any) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(doc)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("encoding a manifest: %w", err)
	}
	return b.to.AddManifest(b.repo, tag, mediaType, raw)
}
