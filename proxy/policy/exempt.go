package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Attachments are manifests that no runtime can run. Neither a tag's name nor a subject makes one:
// whoever can push could give both to an image. What a runtime takes for an image follows from the
// type of the config, and in Docker, which does not look at the types of layers, from that alone.

// attachmentTypes are the artifact types and config types of signatures, SBOMs and attestations.
var attachmentTypes = map[string]bool{
	"application/vnd.cncf.notary.signature":                true,
	"application/vnd.dev.cosign.artifact.sig.v1+json":      true,
	"application/vnd.dev.cosign.artifact.att.v1+json":      true,
	"application/vnd.dev.cosign.artifact.sbom.v1+json":     true,
	"application/vnd.dev.sigstore.bundle.v0.3+json":        true,
	"application/vnd.dev.sigstore.bundle+json;version=0.1": true,
	"application/vnd.dev.sigstore.bundle+json;version=0.2": true,
	"application/vnd.dev.sigstore.bundle+json;version=0.3": true,
	"application/vnd.in-toto+json":                         true,
	"application/vnd.dsse.envelope.v1+json":                true,
	"application/spdx+json":                                true,
	"text/spdx":                                            true,
	"application/vnd.cyclonedx":                            true,
	"application/vnd.cyclonedx+json":                       true,
	"application/vnd.cyclonedx+xml":                        true,
	"application/vnd.syft+json":                            true,
	"application/sarif+json":                               true,
}

// attachmentLayers are the types of layers with which cosign attaches text to an image in a
// manifest that has the config of an image.
var attachmentLayers = map[string]bool{
	"application/vnd.dev.cosign.simplesigning.v1+json": true,
	"application/vnd.dsse.envelope.v1+json":            true,
	"application/vnd.in-toto+json":                     true,
	"application/vnd.cyclonedx":                        true,
	"application/vnd.cyclonedx+json":                   true,
	"application/vnd.cyclonedx+xml":                    true,
	"application/vnd.syft+json":                        true,
	"application/spdx+json":                            true,
	"spdx+json":                                        true,
	"text/spdx":                                        true,
	"text/spdx+json":                                   true,
	"text/spdx+xml":                                    true,
}

// runnableConfigs are the types of configs that a runtime takes for those of an image. Docker takes
// the last two, which old registries have sent.
var runnableConfigs = map[string]bool{
	"application/vnd.oci.image.config.v1+json":       true,
	"application/vnd.docker.container.image.v1+json": true,
	"application/octet-stream":                       true,
	"":                                               true,
}

// maxAttached bounds the layers that are read to find out what an attachment is.
const maxAttached = 64

// isIndex reports whether a media type is that of an index.
func isIndex(mediaType string) bool {
	return mediaType == "application/vnd.oci.image.index.v1+json" || mediaType == "application/vnd.docker.distribution.manifest.list.v2+json"
}

func isDigest(d digest.Digest) bool { return d.Validate() == nil }

// isImageLayer reports whether a runtime would unpack a layer of this type.
func isImageLayer(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.") || mediaType == "application/octet-stream" || mediaType == ""
}

// document is what of a manifest tells what it is.
type document struct {
	ArtifactType string `json:"artifactType"`
	Config       *struct {
		MediaType string `json:"mediaType"`
	} `json:"config"`
	Layers []struct {
		MediaType string        `json:"mediaType"`
		Digest    digest.Digest `json:"digest"`
		URLs      []string      `json:"urls"`
	} `json:"layers"`
	Manifests []struct {
		MediaType string          `json:"mediaType"`
		Digest    digest.Digest   `json:"digest"`
		Platform  json.RawMessage `json:"platform"`
	} `json:"manifests"`
	Blobs []struct {
		MediaType string `json:"mediaType"`
	} `json:"blobs"` // of a manifest of artifacts, which was never in a release of the specification
}

// isAttachment reports whether an image is a signature, an SBOM or an attestation, and nothing that
// could be run.
func isAttachment(ctx context.Context, image Image, content Content) (bool, error) {
	raw, err := content.Manifest(ctx, image)
	if err != nil {
		return false, err
	}
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		return false, fmt.Errorf("read manifest %s: %w", image.Digest, err)
	}
	if isIndex(image.MediaType) {
		return doc.hasOnlyAttachments(ctx, image, content)
	}
	for _, layer := range doc.Layers {
		if isImageLayer(layer.MediaType) || len(layer.URLs) > 0 {
			return false, nil
		}
	}
	if doc.Config == nil {
		return len(doc.Layers) == 0 && attachmentTypes[doc.ArtifactType], nil
	}
	if !runnableConfigs[doc.Config.MediaType] {
		return attachmentTypes[doc.ArtifactType] || attachmentTypes[doc.Config.MediaType], nil
	}
	return doc.isText(ctx, image, content)
}

// hasOnlyAttachments reports whether an index lists nothing but attachments, as the one does that stands for a
// list of referrers where the registry has none. Each is looked at itself: what an index says of it is not
// enough.
func (doc *document) hasOnlyAttachments(ctx context.Context, index Image, content Content) (bool, error) {
	if len(doc.Manifests) == 0 || len(doc.Manifests) > maxAttached {
		return false, nil
	}
	for _, entry := range doc.Manifests { // the cheap question first: images have indexes, too
		if isIndex(entry.MediaType) || entry.Platform != nil || !isDigest(entry.Digest) {
			return false, nil
		}
	}
	for _, entry := range doc.Manifests {
		image := Image{index.Host, index.Repository, entry.Digest, entry.MediaType}
		only, err := isAttachment(ctx, image, content)
		if errors.Is(err, fs.ErrNotExist) { // what is gone cannot be looked at: it is no attachment
			only, err = false, nil
		}
		if err != nil || !only {
			return false, err
		}
	}
	return true, nil
}

// isText reports whether a manifest with the config of an image has layers that are text, which
// cannot be unpacked, whatever a runtime takes them for.
func (doc *document) isText(ctx context.Context, image Image, content Content) (bool, error) {
	if len(doc.Layers) == 0 || len(doc.Layers) > maxAttached {
		return false, nil
	}
	for _, layer := range doc.Layers {
		if !attachmentLayers[layer.MediaType] {
			return false, nil
		}
	}
	for _, layer := range doc.Layers {
		if !isDigest(layer.Digest) {
			return false, errors.New("a layer has no valid digest")
		}
		text, err := content.IsText(ctx, image, layer.Digest)
		if err != nil || !text {
			return false, err
		}
	}
	return true, nil
}
