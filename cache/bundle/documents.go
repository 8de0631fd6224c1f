package bundle

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// annotationImage is where containerd, Docker and podman look for the name of an image.
const annotationImage = "io.containerd.image.name"

func layoutDocument() []byte { return encode(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}) }

// indexDocument makes index.json. The specification calls ref.name a tag, and allows more.
// It has the whole name here, because skopeo and podman choose one of several images by it,
// and tags are not unique. A referrer has no name, as in the layouts of ORAS.
func indexDocument(images []Image) []byte {
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
	var referrers []Referrer
	for _, image := range images {
		index.Manifests = append(index.Manifests, ocispec.Descriptor{
			MediaType: image.MediaType, Digest: image.Digest, Size: image.Size,
			Annotations: map[string]string{annotationImage: image.Name, ocispec.AnnotationRefName: image.Name},
		})
		referrers = append(referrers, image.Referrers...)
	}
	slices.SortFunc(referrers, func(a, b Referrer) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	for _, r := range slices.CompactFunc(referrers, func(a, b Referrer) bool { return a.Digest == b.Digest }) {
		index.Manifests = append(index.Manifests, ocispec.Descriptor{
			MediaType: r.MediaType, Digest: r.Digest, Size: r.Size, ArtifactType: r.ArtifactType,
		})
	}
	return encode(index)
}

// dockerImage is an element of Docker's manifest.json. Paths are names of entries.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerDocument makes manifest.json from the images that Docker can load: those with one
// platform, of which the bundle has every blob. It returns nil if there is none.
func (c *collection) dockerDocument(images []Image) ([]byte, error) {
	here := make(map[digest.Digest]bool, len(c.blobs))
	for _, b := range c.blobs {
		here[b.Digest] = true
	}
	var all []dockerImage
	for _, image := range images {
		d := image.Digest
		switch {
		case len(image.Platforms) == 1:
			d = image.Platforms[0].Digest
		case image.Platforms != nil:
			continue
		}
		raw, err := c.opts.Manifest(d)
		if err != nil {
			return nil, err
		}
		m, err := parseImage(raw)
		if err != nil {
			return nil, err
		}
		if !m.runnable() || !here[m.Config.Digest] {
			continue
		}
		entry := dockerImage{Config: blobName(m.Config.Digest), RepoTags: []string{}, Layers: []string{}}
		if !strings.Contains(image.Name, "@") {
			entry.RepoTags = append(entry.RepoTags, image.Name)
		}
		whole := true
		for _, layer := range m.Layers {
			whole = whole && here[layer.Digest]
			entry.Layers = append(entry.Layers, blobName(layer.Digest))
		}
		if whole {
			all = append(all, entry)
		}
	}
	if all == nil {
		return nil, nil
	}
	return encode(all), nil
}

// imageManifest is a manifest, as far as Docker's manifest.json repeats it.
type imageManifest struct {
	Config imageBlob       `json:"config"`
	Layers list[imageBlob] `json:"layers"`
}

type imageBlob struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
}

func (b imageBlob) check() error { return checkDigest(b.Digest) }

func parseImage(raw []byte) (m imageManifest, err error) {
	return m, json.Unmarshal(raw, &m)
}

// runnable reports whether a manifest is that of a container image, rather than of a chart or
// another artifact.
func (m imageManifest) runnable() bool {
	return m.Config.MediaType == ocispec.MediaTypeImageConfig || m.Config.MediaType == "application/vnd.docker.container.image.v1+json"
}

// encode returns a document in JSON. The values of this package can be encoded.
func encode(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}
