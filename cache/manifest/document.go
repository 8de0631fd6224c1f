package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// kind is what the structure of a document makes it.
type kind uint8

const (
	none     kind = iota
	index         // has manifests
	image         // has a config or layers
	artifact      // has blobs at most
)

// kinds are the media types of manifests, each with the structure that it must have. The
// two of artifacts were never in a release of the specification; ORAS and ACR have kept
// documents of them.
var kinds = map[string]kind{
	ocispec.MediaTypeImageIndex:                                 index,
	"application/vnd.docker.distribution.manifest.list.v2+json": index,
	ocispec.MediaTypeImageManifest:                              image,
	"application/vnd.docker.distribution.manifest.v2+json":      image,
	"application/vnd.oci.artifact.manifest.v1+json":             artifact,
	"application/vnd.cncf.oras.artifact.manifest.v1+json":       artifact,
}

// IsIndex reports whether a media type is that of an index.
func IsIndex(mediaType string) bool { return kinds[mediaType] == index }

// document is what of a manifest or an index the store looks at. mediaType is one of
// kinds.
type document struct {
	mediaType                string
	config, subject          *descriptor
	layers, manifests, blobs []descriptor
}

type descriptor struct {
	MediaType, ArtifactType string
	Digest                  digest.Digest
	Size                    int64
	URLs                    []string
	Platform                *ocispec.Platform
}

// isPlatform reports whether an entry of an index is an image for a platform. BuildKit
// gives attestations the platform unknown/unknown, and SOCI its indexes an artifactType.
func (d *descriptor) isPlatform() bool {
	return d.ArtifactType == "" && d.Platform != nil && d.Platform.OS != "" && d.Platform.OS != "unknown"
}

// parse reads a document. The error is [ErrSchema1], or says why the document is no
// manifest.
func parse(raw []byte) (document, error) {
	var d document
	var version, fsLayers any
	err := readObject(raw, []field{
		{"mediaType", &d.mediaType},
		{"schemaVersion", &version},
		{"config", &d.config},
		{"layers", &d.layers},
		{"manifests", &d.manifests},
		{"blobs", &d.blobs},
		{"subject", &d.subject},
		{"fsLayers", &fsLayers},
	})
	switch {
	case err != nil:
		return document{}, err
	case version == 1.0 && fsLayers != nil, strings.HasPrefix(d.mediaType, "application/vnd.docker.distribution.manifest.v1+"):
		return document{}, ErrSchema1
	case d.manifests != nil && (d.layers != nil || d.config != nil || d.blobs != nil):
		return document{}, errors.New("it is both an index and a manifest")
	case d.blobs != nil && (d.layers != nil || d.config != nil):
		return document{}, errors.New("it is both an image and an artifact")
	}
	is := d.kind()
	switch {
	case d.mediaType == "" && is == index:
		d.mediaType = ocispec.MediaTypeImageIndex // Docker's documents must have a mediaType
	case d.mediaType == "" && d.config != nil && d.layers != nil:
		d.mediaType = ocispec.MediaTypeImageManifest
	case d.mediaType == "":
		return document{}, errors.New("it has neither a mediaType nor the parts of a manifest")
	case kinds[d.mediaType] == none:
		return document{}, fmt.Errorf("its mediaType %.100q is that of no manifest", d.mediaType)
	case kinds[d.mediaType] != is:
		return document{}, fmt.Errorf("it does not have the parts of its mediaType %q", d.mediaType)
	}
	return d, nil
}

// kind tells the structure of a document. One without any parts can be an artifact.
func (d *document) kind() kind {
	switch {
	case d.manifests != nil:
		return index
	case d.config != nil || d.layers != nil:
		return image
	case d.blobs != nil || kinds[d.mediaType] == artifact:
		return artifact
	}
	return none
}

// children lists what a document names and a registry holds. Layers with URLs live
// elsewhere, and are never fetched from there (CVE-2020-15157). An index of BuildKit's
// cache has layers as entries.
func (d *document) children() ([]Child, error) {
	var all []Child
	add := func(indexed bool, descriptors ...descriptor) {
		for _, c := range descriptors {
			if len(c.URLs) > 0 {
				continue
			}
			manifest := indexed && (c.MediaType == "" || kinds[strings.ToLower(c.MediaType)] != none)
			all = append(all, Child{Digest: c.Digest, Size: c.Size, Manifest: manifest, Platform: manifest && c.isPlatform()})
		}
	}
	add(false, d.layers...)
	add(true, d.manifests...)
	add(false, d.blobs...)
	if d.config != nil {
		add(false, *d.config)
	}
	for _, c := range all {
		if err := c.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("%w: it names %q: %w", ErrRefused, c.Digest, err)
		}
	}
	return all, nil
}

// UnmarshalJSON is for json.Unmarshaler.
func (d *descriptor) UnmarshalJSON(raw []byte) error {
	return readObject(raw, []field{
		{"mediaType", &d.MediaType},
		{"digest", &d.Digest},
		{"size", &d.Size},
		{"urls", &d.URLs},
		{"artifactType", &d.ArtifactType},
		{"platform", &d.Platform},
	})
}

// field is a member of a JSON object that is looked at, and a pointer to where its value
// goes.
type field struct {
	name string
	into any
}

// readObject reads fields of a JSON object and skips all others. It refuses a field that
// comes twice, or in other letter case: readers of JSON do not agree on which one counts,
// and what a document names decides which blobs a repository may serve. Null is no object.
func readObject(raw []byte, fields []field) error {
	in := json.NewDecoder(bytes.NewReader(raw))
	start, err := in.Token()
	if err != nil {
		return err
	}
	if start != json.Delim('{') {
		return fmt.Errorf("%.20q is not a JSON object", raw)
	}
	var seen uint64
	for in.More() {
		token, err := in.Token()
		if err != nil {
			return err
		}
		key, _ := token.(string) // the decoder takes nothing else
		var into any = new(json.RawMessage)
		for i, f := range fields {
			if !strings.EqualFold(key, f.name) {
				continue
			}
			if key != f.name || seen&(1<<i) != 0 {
				return fmt.Errorf("its JSON has %q twice, or in other letter case", f.name)
			}
			seen |= 1 << i
			into = f.into
		}
		if err := in.Decode(into); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if _, err := in.Token(); err != nil {
		return err
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its JSON object")
	}
	return nil
}
