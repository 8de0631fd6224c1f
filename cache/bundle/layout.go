package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/manifest"
)

// Layout is what a bundle or an OCI layout says about its images.
type Layout struct {
	// Images are the images with a name, sorted by it. Those of a bundle are its
	// description's; those of another layout have Name, Digest, MediaType and Size only.
	Images []Image
	// Rebuilt says that Docker made the manifests from its own storage, so that their
	// digests are not those of a registry. "podman save", and "skopeo copy" without
	// --preserve-digests, do the same and leave no trace of it.
	Rebuilt bool

	bundle  *Description // or nil
	here    digests      // blobs of the layout
	unnamed []digest.Digest
	docker  map[digest.Digest]list[blobPath] // the layers of Docker's images, by their config
	tags    map[string]digest.Digest         // the configs of Docker's images, by their name
}

// newLayout reads the documents of a layout, whose description is nil if it is no bundle.
func newLayout(docs Documents, description *Description, here digests) (*Layout, error) {
	l := &Layout{here: here}
	if err := l.readDocker(docs[dockerFile]); err != nil {
		return nil, blame(dockerFile, err)
	}
	if description != nil {
		l.bundle, l.Images = description, description.Images
		return l, nil
	}
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(docs[layoutFile], &layout); err != nil {
		return nil, blame(layoutFile, err)
	}
	if !strings.HasPrefix(layout.Version, "1.") {
		return nil, blame(layoutFile, fmt.Errorf("version %.20q of the OCI layout is not supported", layout.Version))
	}
	if err := l.readIndex(docs[indexFile]); err != nil {
		return nil, blame(indexFile, err)
	}
	return l, nil
}

// layoutEntry is an entry of index.json.
type layoutEntry struct {
	MediaType   string        `json:"mediaType"`
	Digest      digest.Digest `json:"digest"`
	Size        int64         `json:"size"`
	Annotations struct {
		Image string `json:"io.containerd.image.name"`
		Ref   string `json:"org.opencontainers.image.ref.name"`
	} `json:"annotations"`
}

func (e layoutEntry) check() error { return Blob{Digest: e.Digest, Size: e.Size}.check() }

func (l *Layout) readIndex(raw []byte) error {
	var index struct {
		Manifests list[layoutEntry] `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return err
	}
	for _, e := range index.Manifests {
		image := Image{Name: e.Annotations.Image, Digest: e.Digest, MediaType: e.MediaType, Size: e.Size}
		if image.Name == "" {
			image.Name = e.Annotations.Ref
		}
		if image.Name == "" {
			l.unnamed = append(l.unnamed, e.Digest)
			continue
		}
		if err := checkName(image.Name); err != nil {
			return err
		}
		l.Images = append(l.Images, image)
	}
	slices.SortFunc(l.Images, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(l.Images); i++ {
		if a, b := l.Images[i-1], l.Images[i]; a.Name == b.Name && a.Digest != b.Digest {
			return fmt.Errorf("it names two images %s: %s and %s", a.Name, a.Digest, b.Digest)
		}
	}
	l.Images = slices.CompactFunc(l.Images, func(a, b Image) bool { return a.Name == b.Name })
	return nil
}

// Tree is an image, and what its manifests and those of its referrers name.
type Tree struct {
	Image
	// Contents lists what the image consists of: children before their parents, each once.
	// What is left out, or lives elsewhere because its layer has URLs, is not in it.
	Contents []Content
	// Missing are the contents that the caller does not have. An image with some is not
	// whole: they are in another part, or the site has lost what its inventory named.
	Missing []Content
}

// Resolve tells what each image consists of, one after the other. manifest returns a
// manifest by its digest, or [fs.ErrNotExist]; has reports whether the caller has a blob. The
// error is about the image that comes with it: its manifests contradict each other, the
// description, or Docker's manifest.json.
//
// The entries of an index that a bundle leaves out are declared. The layouts of other
// tools leave out those that are not whole in the layout.
func (l *Layout) Resolve(manifest func(digest.Digest) ([]byte, error), has func(digest.Digest) bool) iter.Seq2[Tree, error] {
	return func(yield func(Tree, error) bool) {
		subjects := l.subjects(manifest)
		for _, image := range l.Images {
			t, err := l.resolve(image, subjects, manifest, has)
			if err != nil {
				err = fmt.Errorf("image %s: %w", image.Name, err)
			}
			if !yield(t, err) {
				return
			}
		}
	}
}

func (l *Layout) resolve(
	image Image, subjects map[digest.Digest][]Referrer, read func(digest.Digest) ([]byte, error), has func(digest.Digest) bool,
) (Tree, error) {
	t := Tree{Image: image}
	r := newReach(read, func(e choice) bool {
		return slices.ContainsFunc(image.LeftOut, func(c Child) bool { return c.Digest == e.Digest })
	})
	r.tolerant = true
	if l.bundle == nil {
		whole := make(map[digest.Digest]bool) // an index may name one manifest thousands of times
		r.leave = func(e choice) bool {
			if _, known := whole[e.Digest]; !known {
				whole[e.Digest] = l.whole(e.Digest, read, has)
			}
			return e.ofLeftOut || !whole[e.Digest]
		}
	}
	if err := r.add(image.Digest, image.Size, 0); err != nil {
		return t, err
	}
	if l.bundle == nil {
		t.MediaType, t.Platforms, t.LeftOut = r.mediaType[image.Digest], r.platforms, r.leftOut
		t.Referrers = referrersOf(r.all, subjects)
	} else if err := r.sameAs(image); err != nil {
		return t, err
	}
	if err := l.compareDocker(image.Name, r); err != nil {
		return t, err
	}
	r.leave = nothing
	for _, ref := range t.Referrers {
		if err := r.addReferrer(ref); err != nil {
			return t, fmt.Errorf("referrer %s: %w", ref.Digest, err)
		}
	}
	t.Contents, t.Missing = r.all, r.missing
	for _, c := range r.all {
		if err := l.promises(c); err != nil {
			return t, err
		}
		if !c.Manifest && !has(c.Digest) {
			t.Missing = append(t.Missing, c)
		}
	}
	return t, nil
}

// sameAs ensures that the manifests of an image are what the description says. Those that
// are missing are compared once they are there.
func (r *reach) sameAs(image Image) error {
	switch {
	case len(r.missing) > 0:
	case r.mediaType[image.Digest] != image.MediaType:
		return fmt.Errorf("its manifest is of type %s, and of %s by %s", r.mediaType[image.Digest], image.MediaType, DescriptionFile)
	case !slices.Equal(r.platforms, image.Platforms), !slices.Equal(r.leftOut, image.LeftOut):
		return fmt.Errorf("its index has other platforms than %s", DescriptionFile)
	}
	return nil
}

// promises ensures that a bundle knows what its images consist of. It has each blob, or says
// that the site has it.
func (l *Layout) promises(c Content) error {
	if l.bundle == nil {
		return nil
	}
	b, ok := l.bundle.promised(c.Digest)
	switch {
	case !ok:
		return fmt.Errorf("a manifest names the blob %s, and %s does not", c.Digest, DescriptionFile)
	case b.Size != c.Size:
		return fmt.Errorf("a manifest says that blob %s has %d bytes, and %s says %d", c.Digest, c.Size, DescriptionFile, b.Size)
	}
	return nil
}

// whole reports whether a manifest of an index is in the layout, with everything below it.
func (l *Layout) whole(d digest.Digest, read func(digest.Digest) ([]byte, error), has func(digest.Digest) bool) bool {
	if !l.here.has(d) {
		return false
	}
	r := newReach(read, nothing)
	if err := r.add(d, -1, 1); err != nil {
		return !errors.Is(err, fs.ErrNotExist) // other errors are for the user
	}
	for _, c := range r.all {
		if !c.Manifest && !has(c.Digest) {
			return false
		}
	}
	return true
}

// subjects reads the manifests without a name, and returns those that refer to another one,
// by what they refer to. The layouts of ORAS have referrers like that.
func (l *Layout) subjects(read func(digest.Digest) ([]byte, error)) map[digest.Digest][]Referrer {
	all := make(map[digest.Digest][]Referrer)
	for _, d := range l.unnamed {
		raw, err := read(d)
		if err != nil {
			continue // it belongs to no image then
		}
		m := manifest.Manifest{Digest: d, Raw: raw}
		if _, err := m.Check(); err != nil {
			continue
		}
		subject, artifactType, err := parseReferrer(raw)
		if err == nil && subject != "" {
			all[subject] = append(all[subject], Referrer{
				Digest: d, MediaType: m.MediaType, ArtifactType: artifactType, Size: m.Size, Subject: subject,
			})
		}
	}
	return all
}

// referrersOf lists the referrers of the manifests of an image, and the referrers of those.
func referrersOf(contents []Content, subjects map[digest.Digest][]Referrer) []Referrer {
	var all []Referrer
	listed := make(map[digest.Digest]bool)
	var of []digest.Digest
	for _, c := range contents {
		if c.Manifest {
			of = append(of, c.Digest)
		}
	}
	for len(of) > 0 {
		var next []digest.Digest
		for _, subject := range of {
			for _, r := range subjects[subject] {
				if !listed[r.Digest] {
					listed[r.Digest] = true
					all, next = append(all, r), append(next, r.Digest)
				}
			}
		}
		of = next
	}
	return all
}
