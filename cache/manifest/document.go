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

	"github.com/larder-registry/larder/cache/disk"
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

// IsManifest reports whether a media type is that of a manifest or an index.
func IsManifest(mediaType string) bool { return kinds[mediaType] != none }

// document is what of a manifest or an index the store looks at. mediaType is one of
// kinds.
type document struct {
	mediaType                string
	config, subject          *descriptor
	layers, manifests, blobs bool // it has this list
	children                 children
}

type descriptor struct {
	MediaType, ArtifactType string
	Digest                  digest.Digest
	Size                    int64
	URLs                    []string
	Platform                *ocispec.Platform
}

// IsPlatform reports whether an entry of an index, with this platform and artifactType, is an
// image for a platform. BuildKit gives attestations the platform unknown/unknown, and SOCI its
// indexes an artifactType.
func IsPlatform(p *ocispec.Platform, artifactType string) bool {
	return artifactType == "" && p != nil && p.OS != "" && p.OS != "unknown"
}

// parse reads a document, in little more memory than its longest value takes. The error is
// [ErrSchema1], or says why the document is no manifest.
func parse(raw io.Reader) (document, error) {
	var d document
	var version, fsLayers any
	in := json.NewDecoder(raw)
	err := readObject(in, []field{
		{"mediaType", into(&d.mediaType)},
		{"schemaVersion", into(&version)},
		{"config", into(&d.config)},
		{"layers", d.children.read(&d.layers, false)},
		{"manifests", d.children.read(&d.manifests, true)},
		{"blobs", d.children.read(&d.blobs, false)},
		{"subject", into(&d.subject)},
		{"fsLayers", into(&fsLayers)},
	})
	if err == nil {
		err = readEnd(in)
	}
	switch {
	case err != nil:
		return document{}, fmt.Errorf("%.300s", err.Error()) // it may quote a key or a number of any length
	case version == 1.0 && fsLayers != nil, strings.HasPrefix(d.mediaType, "application/vnd.docker.distribution.manifest.v1+"):
		return document{}, ErrSchema1
	case d.manifests && (d.layers || d.config != nil || d.blobs):
		return document{}, errors.New("it is both an index and a manifest")
	case d.blobs && (d.layers || d.config != nil):
		return document{}, errors.New("it is both an image and an artifact")
	}
	is := d.kind()
	switch {
	case d.mediaType == "" && is == index:
		d.mediaType = ocispec.MediaTypeImageIndex // Docker's documents must have a mediaType
	case d.mediaType == "" && d.config != nil && d.layers:
		d.mediaType = ocispec.MediaTypeImageManifest
	case d.mediaType == "":
		return document{}, errors.New("it has neither a mediaType nor the parts of a manifest")
	case kinds[d.mediaType] == none:
		return document{}, fmt.Errorf("its mediaType %.100q is that of no manifest", d.mediaType)
	case kinds[d.mediaType] != is:
		return document{}, fmt.Errorf("it does not have the parts of its mediaType %q", d.mediaType)
	}
	if d.config != nil {
		if err := d.config.check(); err != nil {
			return document{}, err
		}
		d.children.add(d.config, false)
	}
	return d, nil
}

// kind tells the structure of a document. One without any parts can be an artifact.
func (d *document) kind() kind {
	switch {
	case d.manifests:
		return index
	case d.config != nil || d.layers:
		return image
	case d.blobs || kinds[d.mediaType] == artifact:
		return artifact
	}
	return none
}

// subjectDigest returns the digest of the manifest that a document refers to, or nothing.
func (d *document) subjectDigest() digest.Digest {
	if d.subject == nil || d.subject.Digest.Validate() != nil {
		return ""
	}
	return d.subject.Digest
}

// children are what a document names and a registry holds. Layers with URLs live elsewhere, and are
// never fetched from there (CVE-2020-15157). An index of BuildKit's cache has layers as
// entries.
type children struct {
	found []Child
	err   error // [ErrTooMany]: then found is empty
}

// read returns a function that reads a list of descriptors one by one, so that the first one
// without a digest ends it. indexed says that these are entries of an index.
func (c *children) read(is *bool, indexed bool) func(*json.Decoder) error {
	return func(in *json.Decoder) error {
		start, err := in.Token()
		switch {
		case err != nil:
			return err
		case start == nil: // null is no list
			return nil
		case start != json.Delim('['):
			return fmt.Errorf("it begins with %.20q, which is not a JSON array", fmt.Sprint(start))
		}
		*is = true
		for in.More() {
			var d descriptor
			err := d.read(in)
			if err == nil {
				err = d.check()
			}
			if err != nil {
				return err
			}
			c.add(&d, indexed)
		}
		_, err = in.Token()
		return err
	}
}

func (c *children) add(d *descriptor, indexed bool) {
	switch {
	case len(d.URLs) > 0 || c.err != nil:
		return
	case len(c.found) == MaxChildren:
		c.found, c.err = nil, ErrTooMany
		return
	}
	manifest := indexed && isEntryOfManifest(d.MediaType)
	c.found = append(c.found, Child{Digest: d.Digest, Size: d.Size, Manifest: manifest, Platform: manifest && IsPlatform(d.Platform, d.ArtifactType)})
}

// check returns an error unless the descriptor has a digest that the store can keep, and may
// have its size.
func (d *descriptor) check() error {
	if d.Size < 0 {
		return fmt.Errorf("it gives %.100q a size of %d bytes", d.Digest, d.Size)
	}
	if err := disk.CheckDigest(d.Digest); err != nil {
		return fmt.Errorf("it names %.100q: %w", d.Digest, err)
	}
	return nil
}

func (d *descriptor) read(in *json.Decoder) error {
	return readObject(in, []field{
		{"mediaType", into(&d.MediaType)},
		{"digest", into(&d.Digest)},
		{"size", into(&d.Size)},
		{"urls", into(&d.URLs)},
		{"artifactType", into(&d.ArtifactType)},
		{"platform", into(&d.Platform)},
	})
}

// UnmarshalJSON is for json.Unmarshaler.
func (d *descriptor) UnmarshalJSON(raw []byte) error {
	return d.read(json.NewDecoder(bytes.NewReader(raw)))
}

// field is a member of a JSON object that is looked at, and a function that reads its value.
type field struct {
	name string
	read func(*json.Decoder) error
}

// into returns a function that decodes a value.
func into(v any) func(*json.Decoder) error {
	return func(in *json.Decoder) error { return in.Decode(v) }
}

// skipped is a value that is not looked at.
type skipped struct{}

// UnmarshalJSON is for json.Unmarshaler.
func (*skipped) UnmarshalJSON([]byte) error { return nil }

// readObject reads fields of a JSON object and skips all others. It refuses a field that
// comes twice, or in other letter case: readers of JSON do not agree on which one counts,
// and what a document names decides which blobs a repository may serve. Null is no object.
func readObject(in *json.Decoder, fields []field) error {
	start, err := in.Token()
	if err != nil {
		return err
	}
	if start != json.Delim('{') {
		return fmt.Errorf("it begins with %.20q, which is not a JSON object", fmt.Sprint(start))
	}
	var seen uint64
	for in.More() {
		token, err := in.Token()
		if err != nil {
			return err
		}
		key, _ := token.(string) // the decoder takes nothing else
		read := into(new(skipped))
		for i, f := range fields {
			if !strings.EqualFold(key, f.name) {
				continue
			}
			if key != f.name || seen&(1<<i) != 0 {
				return fmt.Errorf("its JSON has %q twice, or in other letter case", f.name)
			}
			seen |= 1 << i
			read = f.read
		}
		if err := read(in); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	_, err = in.Token()
	return err
}

// readEnd returns an error if anything follows what was read.
func readEnd(in *json.Decoder) error {
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its JSON object")
	}
	return nil
}
