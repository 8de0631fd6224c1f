package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/name"
)

// served is an image in the registry.
type served struct {
	repository, tag string // the tag is empty if there is none
	root            ocispec.Descriptor
	size            int64 // of all its blobs that the layout has, in bytes
}

// reference returns the tag or the digest, with its separator.
func (i served) reference() string {
	if i.tag == "" {
		return "@" + i.root.Digest.String()
	}
	return ":" + i.tag
}

// addLayout adds every image of a layout to a registry. It reads each blob once, to check its digest.
func addLayout(fake *ecrtest.Server, l *layout) ([]served, error) {
	raw, err := l.read(ocispec.ImageIndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("it is not an OCI layout: it has no index.json (skopeo copy docker-archive:FILE oci:FOLDER makes one)")
	}
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	var images []served
	for _, root := range index.Manifests {
		repository, tag := imageName(root.Annotations, l.name)
		if tag == "" && len(index.Manifests) == 1 {
			tag = "latest"
		}
		a := adder{layout: l, fake: fake, repository: repository, seen: make(map[digest.Digest]bool)}
		if err := a.addManifest(tag, root); err != nil {
			return nil, err
		}
		images = append(images, served{repository, tag, root, a.size})
	}
	if len(images) == 0 {
		return nil, errors.New("it contains no image")
	}
	return images, nil
}

// addSample adds an image of random bytes to a registry.
func addSample(fake *ecrtest.Server) (served, error) {
	const repository, tag = "sample/app", "1.0"
	added, err := fake.AddImage(repository, tag, ecrtest.Image{
		Layers: []ecrtest.Layer{
			{Content: ecrtest.TarLayer("opt/base", 1, 1_000_000)},
			{Content: ecrtest.TarLayer("opt/app", 2, 20_000_000)},
		},
		Platforms: []string{"linux/amd64", "linux/arm64"},
		Artifact:  true,
	})
	if err != nil {
		return served{}, err
	}
	return served{repository, tag, added.Root, added.Size}, nil
}

// imageName returns the repository and the tag that annotations name: io.containerd.image.name, or else
// org.opencontainers.image.ref.name, which may be only a tag. The host of a registry is left out. If there is no
// repository, it is fallback.
func imageName(annotations map[string]string, fallback string) (repository, tag string) {
	image := annotations["io.containerd.image.name"]
	if image == "" {
		image = annotations[ocispec.AnnotationRefName]
		if !strings.ContainsAny(image, "/:") {
			return fallback, image
		}
	}
	image, _, _ = strings.Cut(image, "@")
	_, image, _ = name.CutHost(image)
	repository, tag, ok := strings.Cut(image, ":")
	if !ok {
		tag = "latest"
	}
	return repository, tag
}

// adder adds one image of a layout to a registry.
type adder struct {
	*layout
	fake       *ecrtest.Server
	repository string
	seen       map[digest.Digest]bool // manifests and blobs that were added or that the layout does not have
	size       int64                  // of the added blobs, in bytes
}

// addManifest adds a manifest or an index, with the manifests and blobs that it names, as far as the layout has them: a
// layout with one platform of an image lacks the others.
func (a *adder) addManifest(tag string, desc ocispec.Descriptor) error {
	name, err := blobPath(desc.Digest)
	if err != nil {
		return err
	}
	raw, err := a.read(name)
	if err != nil {
		return fmt.Errorf("reading a manifest: %w", err)
	}
	var doc struct {
		MediaType string
		Config    *ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return fmt.Errorf("reading the manifest %s: %w", desc.Digest, err)
	}
	for _, child := range doc.Manifests {
		if err := a.once(child, func() error { return a.addManifest("", child) }); err != nil {
			return err
		}
	}
	blobs := doc.Layers
	if doc.Config != nil {
		blobs = append(blobs, *doc.Config)
	}
	for _, blob := range blobs {
		if err := a.once(blob, func() error { return a.addBlob(blob) }); err != nil {
			return err
		}
	}
	mediaType := desc.MediaType
	if doc.MediaType != "" {
		mediaType = doc.MediaType
	}
	added, err := a.fake.AddManifest(a.repository, tag, mediaType, raw)
	if err != nil {
		return err
	}
	return sameDigest(added.Digest, desc.Digest)
}

// once calls add the first time it is called for a digest, if the layout has that.
func (a *adder) once(desc ocispec.Descriptor, add func() error) error {
	if a.seen[desc.Digest] {
		return nil
	}
	a.seen[desc.Digest] = true
	name, err := blobPath(desc.Digest)
	if err != nil {
		return err
	}
	if _, err := a.open(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return add()
}

func (a *adder) addBlob(desc ocispec.Descriptor) error {
	name, err := blobPath(desc.Digest)
	if err != nil {
		return err
	}
	content, err := a.open(name)
	if err != nil {
		return err
	}
	added, err := a.fake.AddBlob(a.repository, content)
	if err != nil {
		return err
	}
	a.size += added.Size
	return sameDigest(added.Digest, desc.Digest)
}

func sameDigest(got, want digest.Digest) error {
	if got != want {
		return fmt.Errorf("%s is damaged: it has the digest %s", want, got)
	}
	return nil
}
