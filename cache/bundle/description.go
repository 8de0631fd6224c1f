package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/manifest"
)

// Version is the version of the format. A description with a greater one is refused.
const Version = 1

// Names of entries.
const (
	DescriptionFile = "larder-bundle.json"
	SignatureFile   = "larder-bundle.json.sigstore.json"

	layoutFile = "oci-layout"
	indexFile  = "index.json"
	dockerFile = "manifest.json"
)

const (
	maxDescription = 8 << 20 // bytes; enough for some 70,000 blobs
	maxParts       = 9999
	maxName        = 512 // bytes of an image's name
)

// Description is the content of larder-bundle.json. All parts of a bundle have the same one,
// byte for byte. Its signature covers everything else, as it names that by digest.
type Description struct {
	Version int `json:"version"`
	// Parts is how many files the bundle has.
	Parts int   `json:"parts"`
	Files Files `json:"files"`
	// Images are sorted by name.
	Images []Image `json:"images"`
	// Blobs are all blobs of all parts, manifests among them, sorted by digest.
	Blobs []Blob `json:"blobs"`
	// Present are blobs that the images need and the bundle does not have, because the
	// site has them by its inventory. They are sorted by digest.
	Present []Blob `json:"present,omitempty"`

	raw []byte
}

// Files are the digests of the other documents of a bundle.
type Files struct {
	Layout digest.Digest `json:"oci-layout"`
	Index  digest.Digest `json:"index.json"`
	Docker digest.Digest `json:"manifest.json,omitempty"` // empty if there is no such document
}

// Blob is a blob or a manifest.
type Blob struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"` // in bytes
	// Manifest says that it is a manifest or an index. It is not known of layouts of other
	// tools.
	Manifest bool `json:"manifest,omitempty"`
	// Part is the number of the part that has the blob, from 1; 0 if none has.
	Part int `json:"part,omitempty"`
}

// Image is a name and the manifest or index that it stands for.
type Image struct {
	// Name is <host>/<repository>:<tag> or <host>/<repository>@<digest> in a bundle. In
	// layouts of other tools it is what they say, unparsed: it may have another form.
	Name      string        `json:"name"`
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"` // of the manifest or index, in bytes
	// Platforms are the images for a platform that the bundle has, and LeftOut are the
	// manifests of the index that it does not have on purpose.
	Platforms []Child `json:"platforms,omitempty"`
	LeftOut   []Child `json:"leftOut,omitempty"`
	// Referrers are signatures, attestations, SBOMs and others that refer to a manifest of
	// the image, or to one another.
	Referrers []Referrer `json:"referrers,omitempty"`
	// Confirmed is when the exporter's upstream last confirmed the tag.
	Confirmed time.Time `json:"confirmed,omitzero"`
}

// Child is a manifest of an index.
type Child struct {
	Digest   digest.Digest `json:"digest"`
	Platform string        `json:"platform,omitempty"` // such as linux/arm64/v8
}

// Referrer is a manifest that refers to another one.
type Referrer struct {
	Digest       digest.Digest `json:"digest"`
	MediaType    string        `json:"mediaType"`
	ArtifactType string        `json:"artifactType,omitempty"`
	Size         int64         `json:"size"` // in bytes
	Subject      digest.Digest `json:"subject"`
}

// Raw returns the bytes of larder-bundle.json, which are what is signed. They must not be
// changed.
func (d *Description) Raw() []byte { return d.raw }

// Size returns how many bytes the blobs of all parts have.
func (d *Description) Size() int64 {
	var sum int64
	for _, b := range d.Blobs {
		sum += b.Size
	}
	return sum
}

// Blob returns the blob with a digest, in any part.
func (d *Description) Blob(of digest.Digest) (Blob, bool) { return find(d.Blobs, of) }

// IsPresent reports whether the bundle leaves out a blob because the site has it.
func (d *Description) IsPresent(of digest.Digest) bool {
	_, ok := find(d.Present, of)
	return ok
}

// find looks for a digest in a sorted list.
func find(sorted []Blob, of digest.Digest) (Blob, bool) {
	i, ok := slices.BinarySearchFunc(sorted, of, func(b Blob, d digest.Digest) int {
		return strings.Compare(string(b.Digest), string(d))
	})
	if !ok {
		return Blob{}, false
	}
	return sorted[i], true
}

// ParseDescription reads and checks a larder-bundle.json. It ignores fields that it does not
// know. It keeps raw, which must not be changed.
func ParseDescription(raw []byte) (*Description, error) {
	if len(raw) > maxDescription {
		return nil, fmt.Errorf("%d bytes are more than %d", len(raw), maxDescription)
	}
	var v struct{ Version int }
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, err
	}
	switch {
	case v.Version > Version:
		return nil, fmt.Errorf("the bundle has format %d and this Larder reads formats up to %d: import it with a newer Larder", v.Version, Version)
	case v.Version < 1:
		return nil, errors.New("it has no version")
	}
	d := Description{raw: raw}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return &d, nil
}

// UnmarshalJSON is for [json.Unmarshaler].
func (d *Description) UnmarshalJSON(raw []byte) error {
	type plain Description
	in := struct {
		*plain
		Images  list[Image] `json:"images"`
		Blobs   list[Blob]  `json:"blobs"`
		Present list[Blob]  `json:"present"`
	}{plain: (*plain)(d)}
	err := json.Unmarshal(raw, &in)
	d.Images, d.Blobs, d.Present = in.Images, in.Blobs, in.Present
	return err
}

// UnmarshalJSON is for [json.Unmarshaler].
func (i *Image) UnmarshalJSON(raw []byte) error {
	type plain Image
	in := struct {
		*plain
		Platforms list[Child]    `json:"platforms"`
		LeftOut   list[Child]    `json:"leftOut"`
		Referrers list[Referrer] `json:"referrers"`
	}{plain: (*plain)(i)}
	err := json.Unmarshal(raw, &in)
	i.Platforms, i.LeftOut, i.Referrers = in.Platforms, in.LeftOut, in.Referrers
	return err
}

// encode checks a description and sets its raw form.
func (d *Description) encode() error {
	if err := d.check(); err != nil {
		return err
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if d.raw = append(raw, '\n'); len(d.raw) > maxDescription {
		return fmt.Errorf("%d images with %d blobs are too many for one bundle: its %s would have %d bytes and may have %d; "+
			"export them as several bundles", len(d.Images), len(d.Blobs), DescriptionFile, len(d.raw), maxDescription)
	}
	return nil
}

// check ensures that a description is consistent, as far as that can be told without the
// manifests.
func (d *Description) check() error {
	if d.Parts < 1 || d.Parts > maxParts {
		return fmt.Errorf("it has %d parts, which is not between 1 and %d", d.Parts, maxParts)
	}
	if err := d.Files.check(); err != nil {
		return err
	}
	var sum int64
	for _, blobs := range [][]Blob{d.Blobs, d.Present} {
		for i, b := range blobs {
			switch {
			case i > 0 && blobs[i-1].Digest >= b.Digest:
				return fmt.Errorf("its blobs are not sorted, or one comes twice: %s", b.Digest)
			case b.Size > math.MaxInt64-sum:
				return errors.New("its sizes are too large")
			}
			sum += b.Size
		}
	}
	for _, b := range d.Blobs {
		if b.Part < 1 || b.Part > d.Parts {
			return fmt.Errorf("blob %s is in part %d of %d", b.Digest, b.Part, d.Parts)
		}
	}
	for i, image := range d.Images {
		if i > 0 && d.Images[i-1].Name >= image.Name {
			return fmt.Errorf("its images are not sorted, or one comes twice: %s", image.Name)
		}
		if err := d.promises(image); err != nil {
			return fmt.Errorf("image %s: %w", image.Name, err)
		}
	}
	return nil
}

// promises ensures that the bundle or the site has the manifests that an image consists of.
func (d *Description) promises(image Image) error {
	promised := []digest.Digest{image.Digest}
	for _, c := range image.Platforms {
		promised = append(promised, c.Digest)
	}
	for _, r := range image.Referrers {
		promised = append(promised, r.Digest)
	}
	for _, of := range promised {
		if b, ok := d.promised(of); !ok || !b.Manifest {
			return fmt.Errorf("the bundle does not have its manifest %s", of)
		}
	}
	if b, _ := d.promised(image.Digest); b.Size != image.Size {
		return fmt.Errorf("it has %d bytes, and its blob has %d", image.Size, b.Size)
	}
	return nil
}

// promised returns a blob that the bundle or the site has.
func (d *Description) promised(of digest.Digest) (Blob, bool) {
	if b, ok := d.Blob(of); ok {
		return b, true
	}
	return find(d.Present, of)
}

func (f Files) check() error {
	if err := checkDigest(f.Layout); err != nil {
		return fmt.Errorf("the digest of %s: %w", layoutFile, err)
	}
	if err := checkDigest(f.Index); err != nil {
		return fmt.Errorf("the digest of %s: %w", indexFile, err)
	}
	if f.Docker == "" {
		return nil
	}
	if err := checkDigest(f.Docker); err != nil {
		return fmt.Errorf("the digest of %s: %w", dockerFile, err)
	}
	return nil
}

func (b Blob) check() error {
	if err := checkDigest(b.Digest); err != nil {
		return err
	}
	if b.Size < 0 || b.Manifest && b.Size > manifest.MaxSize {
		return fmt.Errorf("blob %s has %d bytes", b.Digest, b.Size)
	}
	return nil
}

func (i Image) check() error {
	if err := checkName(i.Name); err != nil {
		return err
	}
	if !manifest.IsManifest(i.MediaType) {
		return fmt.Errorf("image %s: its mediaType %.100q is that of no manifest", i.Name, i.MediaType)
	}
	if err := (Blob{Digest: i.Digest, Size: i.Size}).check(); err != nil {
		return fmt.Errorf("image %s: %w", i.Name, err)
	}
	return nil
}

func (c Child) check() error { return checkDigest(c.Digest) }

func (r Referrer) check() error {
	if err := (Blob{Digest: r.Digest, Size: r.Size}).check(); err != nil {
		return err
	}
	if err := checkDigest(r.Subject); err != nil {
		return fmt.Errorf("the subject of referrer %s: %w", r.Digest, err)
	}
	return nil
}

// checkDigest accepts the digests that a store keeps.
func checkDigest(d digest.Digest) error {
	if err := disk.CheckDigest(d); err != nil {
		return fmt.Errorf("%.150q is no digest: %w", d, err)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return fmt.Errorf("%s: only sha256 and sha512 are supported", d)
	}
	return nil
}

// checkName refuses what is the name of no image. The caller parses names.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("an image has no name")
	case len(name) > maxName:
		return fmt.Errorf("the name %.50q… has %d bytes, which are more than %d", name, len(name), maxName)
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("the name %q has spaces, or characters that are not ASCII", name)
	}
	return nil
}

// sameDigest reports whether a document has a digest.
func sameDigest(raw []byte, d digest.Digest) bool {
	return checkDigest(d) == nil && d.Algorithm().FromBytes(raw) == d
}
