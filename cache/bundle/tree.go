package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/manifest"
)

const (
	maxDepth    = 8       // indexes below indexes; those in use have two levels
	maxContents = 100_000 // blobs of one image
)

// Content is a blob or a manifest of an image.
type Content struct {
	Digest   digest.Digest
	Size     int64 // in bytes
	Manifest bool  // it is a manifest or an index, and not only a blob
}

// reach finds what an image consists of.
type reach struct {
	// manifest returns a manifest.
	manifest func(digest.Digest) ([]byte, error)
	// leave reports whether a manifest of an index is left out.
	leave func(choice) bool
	// tolerant makes manifests that are not there missing, which is an error otherwise.
	tolerant bool

	all       []Content // children before their parents, each once
	seen      map[digest.Digest]int64
	mediaType map[digest.Digest]string // of the manifests
	platforms []Child
	leftOut   []Child
	missing   []Content // in all, too
}

// choice is a manifest of an index that may be left out.
type choice struct {
	Digest   digest.Digest
	Platform *ocispec.Platform // nil if it is not an image for a platform
	// attached says that it is about an image in the same index, and ofLeftOut that this
	// image is left out.
	attached, ofLeftOut bool
}

// nothing leaves nothing out.
func nothing(choice) bool { return false }

func newReach(read func(digest.Digest) ([]byte, error), leave func(choice) bool) *reach {
	return &reach{manifest: read, leave: leave, seen: make(map[digest.Digest]int64), mediaType: make(map[digest.Digest]string)}
}

// indexEntry is what of an entry of an index decides whether it is left out.
type indexEntry struct {
	Digest      digest.Digest     `json:"digest"`
	Platform    *ocispec.Platform `json:"platform"`
	Annotations map[string]string `json:"annotations"`
}

func (e indexEntry) check() error { return checkDigest(e.Digest) }

// add adds a manifest and everything below it. A size of -1 is not compared.
func (r *reach) add(d digest.Digest, size int64, depth int) error {
	if _, ok := r.mediaType[d]; ok {
		return r.sized(d, size)
	}
	if depth > maxDepth {
		return fmt.Errorf("manifest %s: indexes are nested more than %d deep", d, maxDepth)
	}
	raw, err := r.manifest(d)
	if r.tolerant && errors.Is(err, fs.ErrNotExist) {
		c := Content{Digest: d, Size: size, Manifest: true}
		r.missing = append(r.missing, c)
		return r.content(c)
	}
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	m := manifest.Manifest{Digest: d, Raw: raw}
	parts, err := m.Check()
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	r.mediaType[d] = m.MediaType
	left := make(map[digest.Digest]bool)
	if manifest.IsIndex(m.MediaType) {
		if left, err = r.choose(raw, parts.Children); err != nil {
			return fmt.Errorf("index %s: %w", d, err)
		}
	}
	for _, c := range parts.Children {
		switch {
		case left[c.Digest]:
		case c.Manifest:
			err = r.add(c.Digest, c.Size, depth+1)
		default:
			err = r.content(Content{Digest: c.Digest, Size: c.Size})
		}
		if err != nil {
			return err
		}
	}
	if err := r.content(Content{Digest: d, Size: m.Size, Manifest: true}); err != nil {
		return err
	}
	return r.sized(d, size)
}

// content adds a blob or a manifest.
func (r *reach) content(c Content) error {
	if err := (Blob{Digest: c.Digest, Size: c.Size}).check(); err != nil {
		return err
	}
	if _, ok := r.seen[c.Digest]; ok {
		return r.sized(c.Digest, c.Size)
	}
	if len(r.all) == maxContents {
		return fmt.Errorf("it consists of more than %d blobs", maxContents)
	}
	r.seen[c.Digest] = c.Size
	r.all = append(r.all, c)
	return nil
}

// sized compares a size that a manifest tells with what is known of the same content.
func (r *reach) sized(d digest.Digest, size int64) error {
	if known := r.seen[d]; size >= 0 && known != size {
		return fmt.Errorf("%s has %d bytes, and a manifest says %d", d, known, size)
	}
	return nil
}

// choose returns which entries of an index are left out.
func (r *reach) choose(raw []byte, children []manifest.Child) (map[digest.Digest]bool, error) {
	var index struct {
		Manifests list[indexEntry] `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, err
	}
	isManifest, isPlatform := make(map[digest.Digest]bool), make(map[digest.Digest]bool)
	for _, c := range children {
		isManifest[c.Digest] = isManifest[c.Digest] || c.Manifest
		isPlatform[c.Digest] = isPlatform[c.Digest] || c.Platform
	}
	left, kept := make(map[digest.Digest]bool), 0
	if !slices.ContainsFunc(children, func(c manifest.Child) bool { return c.Platform }) {
		return left, nil // such an index is whole with all of its entries only
	}
	for _, e := range index.Manifests {
		if !isPlatform[e.Digest] {
			continue
		}
		if left[e.Digest] = r.leave(choice{Digest: e.Digest, Platform: e.Platform}); !left[e.Digest] {
			kept++
		}
	}
	if kept == 0 {
		return nil, errNoPlatform
	}
	for _, e := range index.Manifests {
		if !isManifest[e.Digest] || isPlatform[e.Digest] {
			continue
		}
		of := manifest.AttachedTo(e.Annotations)
		left[e.Digest] = r.leave(choice{Digest: e.Digest, attached: of != "", ofLeftOut: left[of]})
	}
	for _, e := range index.Manifests {
		c := Child{Digest: e.Digest, Platform: platformString(e.Platform)}
		switch {
		case left[e.Digest]:
			r.leftOut = append(r.leftOut, c)
		case isPlatform[e.Digest]:
			r.platforms = append(r.platforms, c)
		}
	}
	return left, nil
}

// errNoPlatform says that nothing is left of an index.
var errNoPlatform = errors.New("none of its platforms is included")

// platformString returns <os>/<architecture>[/<variant>], or "" for no platform.
func platformString(p *ocispec.Platform) string {
	if p == nil || p.OS == "" {
		return ""
	}
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}
