package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// layout is an OCI image layout. Its files are read where they are, whenever they are asked for.
type layout struct {
	name  string // what images are called that say nothing of it themselves
	open  func(name string) (ecrtest.Content, error)
	close func() error
}

// openLayout opens a folder or a tar.
func openLayout(file string) (*layout, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	absolute, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(strings.TrimSuffix(filepath.Base(absolute), ".tar"))
	if info.IsDir() {
		return &layout{
			name: name,
			open: func(name string) (ecrtest.Content, error) {
				return openFile(filepath.Join(file, filepath.FromSlash(name)))
			},
			close: func() error { return nil },
		}, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	entries, err := tarEntries(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &layout{
		name: name,
		open: func(name string) (ecrtest.Content, error) {
			if entry := entries[name]; entry != nil {
				return entry, nil
			}
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		},
		close: f.Close,
	}, nil
}

// tarEntries returns the regular files in a tar, as sections of it.
func tarEntries(f *os.File) (map[string]*io.SectionReader, error) {
	entries := make(map[string]*io.SectionReader)
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return entries, nil
		case errors.Is(err, tar.ErrHeader):
			return nil, errors.New("it is not a tar, or a compressed one; unpack it first")
		case err != nil:
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		// The reader takes whole headers and no byte more, so that the file stands where the entry begins.
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		entries[path.Clean(h.Name)] = io.NewSectionReader(f, at, h.Size)
	}
}

// file is a file's content. It is opened for each piece that is read, so that a folder of many blobs needs no more files
// than are being read.
type file struct {
	path string
	size int64
}

func openFile(name string) (ecrtest.Content, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	return file{name, info.Size()}, nil
}

func (c file) Size() int64 { return c.size }

func (c file) ReadAt(p []byte, off int64) (int, error) {
	f, err := os.Open(c.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(p, off)
}

// addTo adds every image of the layout to a registry, and reads each blob once to check it.
func (l *layout) addTo(fake *ecrtest.Server) ([]served, error) {
	raw, err := l.read(ocispec.ImageIndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("it is no OCI layout: it has no index.json (skopeo copy docker-archive:FILE oci:FOLDER makes one)")
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
		return nil, errors.New("it holds no image")
	}
	return images, nil
}

// maxDocument is ECR's bound on manifests, in bytes; other documents of a layout are smaller.
const maxDocument = 4 << 20

// read returns a whole document.
func (l *layout) read(name string) ([]byte, error) {
	c, err := l.open(name)
	if err != nil {
		return nil, err
	}
	if c.Size() > maxDocument {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that ECR takes", name, c.Size(), maxDocument)
	}
	return io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
}

// imageName returns the repository and the tag that annotations name, io.containerd.image.name before
// org.opencontainers.image.ref.name, which may be a tag alone. A registry's host in a name is left out, and the
// repository is fallback where there is none.
func imageName(annotations map[string]string, fallback string) (repository, tag string) {
	name := annotations["io.containerd.image.name"]
	if name == "" {
		name = annotations[ocispec.AnnotationRefName]
		if !strings.ContainsAny(name, "/:") {
			return fallback, name
		}
	}
	name, _, _ = strings.Cut(name, "@")
	if host, rest, ok := strings.Cut(name, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		name = rest
	}
	repository, tag, ok := strings.Cut(name, ":")
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
	seen       map[digest.Digest]bool // what was added
	size       int64                  // of the blobs among it
}

// blobPath is where a layout has a blob.
func blobPath(dgst digest.Digest) (string, error) {
	if err := dgst.Validate(); err != nil {
		return "", fmt.Errorf("reading %q: %w", dgst, err)
	}
	return path.Join(ocispec.ImageBlobsDir, dgst.Algorithm().String(), dgst.Encoded()), nil
}

// addManifest adds a manifest or an index, with all of what it names that the layout has: who saves one platform leaves
// the others out.
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

// once adds what was not added yet, and passes over what the layout does not have.
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
