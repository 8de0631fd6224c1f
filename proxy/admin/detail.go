package admin

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/proxy/admin/answer"
	"github.com/larder-registry/larder/upstream/name"
)

// Detail is the response to GET /api/v1/image: what the cache has of an image.
type Detail struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	// Manifests are those of an index, or the one of the image itself. More counts those that are left out.
	Manifests []DetailManifest `json:"manifests"`
	More      int              `json:"more,omitempty"`
}

// DetailManifest is a manifest of an image.
type DetailManifest struct {
	Digest digest.Digest `json:"digest"`
	// Platform is such as linux/arm64. It is empty if the manifest is for none, or if it does not tell.
	Platform string `json:"platform,omitempty"`
	// Here says that the manifest is cached. Its parts are known only then.
	Here  bool         `json:"here"`
	Parts []DetailPart `json:"parts"`
	More  int          `json:"more,omitempty"` // parts that are left out
}

// DetailPart is a blob of a manifest.
type DetailPart struct {
	Digest digest.Digest `json:"digest"`
	Config bool          `json:"config,omitempty"` // rather than a layer
	Size   int64         `json:"size"`             // in bytes, by the manifest
	Here   bool          `json:"here"`
}

// maxDetails bounds the manifests of an image and the parts of a manifest that are listed.
const maxDetails = 130 // an image has at most 127 layers

// details answers GET /api/v1/image?image=<upstream>/<repository>@<digest>. It asks no upstream, and looking at an image
// does not count as using it. One request is answered at a time, since each may read a hundred files.
type details struct {
	store *cache.Store
	mu    sync.Mutex // held while files are read
}

// ServeHTTP answers with a [Detail].
func (d *details) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	repo, reference, err := imageOf(r)
	if err == nil && !strings.Contains(reference, ":") {
		err = fmt.Errorf("%q has no digest: %w", reference, name.ErrImage)
	}
	if err != nil {
		answer.RefuseWith(w, http.StatusBadRequest, err)
		return
	}
	detail, err := d.of(repo, digest.Digest(reference))
	if err != nil {
		answer.Refuse(w, err)
		return
	}
	answer.JSON(w, detail)
}

func (d *details) of(repo cache.Repository, root digest.Digest) (Detail, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.store.Look(repo, root)
	if !ok {
		return Detail{}, fmt.Errorf("the manifest of %s is not in the cache: %w", repo.Image(root.String()), fs.ErrNotExist)
	}
	detail := Detail{Digest: root, MediaType: m.MediaType, Manifests: []DetailManifest{}} // [] rather than null
	var index ocispec.Index
	if err := json.Unmarshal(m.Raw, &index); err != nil {
		return Detail{}, fmt.Errorf("read the manifest of %s: %w", repo.Image(root.String()), err)
	}
	if len(index.Manifests) == 0 {
		index.Manifests = []ocispec.Descriptor{{Digest: root}}
	}
	for _, child := range index.Manifests {
		if len(detail.Manifests) == maxDetails {
			detail.More++
			continue
		}
		detail.Manifests = append(detail.Manifests, d.manifest(repo, child))
	}
	return detail, nil
}

func (d *details) manifest(repo cache.Repository, desc ocispec.Descriptor) DetailManifest {
	is := DetailManifest{Digest: desc.Digest, Platform: platformOf(desc.Platform), Parts: []DetailPart{}}
	m, ok := d.store.Look(repo, desc.Digest)
	var manifest ocispec.Manifest
	if is.Here = ok && json.Unmarshal(m.Raw, &manifest) == nil; !is.Here {
		return is
	}
	add := func(part ocispec.Descriptor, config bool) {
		switch {
		case part.Digest == "":
		case len(is.Parts) == maxDetails:
			is.More++
		default:
			_, err := d.store.Stat(part.Digest)
			is.Parts = append(is.Parts, DetailPart{Digest: part.Digest, Config: config, Size: part.Size, Here: err == nil})
		}
	}
	add(manifest.Config, true)
	for _, layer := range manifest.Layers {
		add(layer, false)
	}
	return is
}

// platformOf returns a platform as users write it.
func platformOf(p *ocispec.Platform) string {
	if p == nil || p.OS == "" || p.OS == "unknown" { // unknown/unknown is an attestation of BuildKit
		return ""
	}
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return text
}
