package upstream

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// Tag is the tag of every image.
const Tag = "v1"

// ImageSpec describes an image. Images with different seeds have no layers of their own in common.
type ImageSpec struct {
	Repository string
	Seed       uint64
	Layers     []int64 // sizes in bytes
	BaseSeed   uint64
	Base       []int64 // sizes of the layers before Layers; equal in all images with the same BaseSeed
}

// An Image is an image that the upstream has.
type Image struct {
	ImageSpec
	added ecrtest.Added
}

// Size is the sum of its blobs, in bytes.
func (i *Image) Size() int64 { return i.added.Size }

// Manifest describes the manifest that its tag points to.
func (i *Image) Manifest() ocispec.Descriptor {
	return ocispec.Descriptor{Digest: i.added.Root.Digest, Size: i.added.Root.Size}
}

// Layer describes Layers[n].
func (i *Image) Layer(n int) ocispec.Descriptor { return i.layers()[len(i.Base)+n] }

// Blobs describes the config and then the layers, in the order in which containerd asks for them.
func (i *Image) Blobs() []ocispec.Descriptor {
	return append([]ocispec.Descriptor{i.added.Blobs[len(i.layers())]}, i.layers()...)
}

// layers describes the layers. The fake adds the config after them.
func (i *Image) layers() []ocispec.Descriptor { return i.added.Blobs[:len(i.added.Blobs)-1] }

// TagPath is the path of its manifest by tag.
func (i *Image) TagPath() string { return i.path("manifests", Tag) }

// ManifestPath is the path of its manifest by digest.
func (i *Image) ManifestPath() string { return i.path("manifests", i.added.Root.Digest.String()) }

// BlobPath is the path of a blob in its repository.
func (i *Image) BlobPath(d digest.Digest) string { return i.path("blobs", d.String()) }

func (i *Image) path(kind, reference string) string {
	return fmt.Sprintf("/v2/%s/%s/%s", i.Repository, kind, reference)
}
