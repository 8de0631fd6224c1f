package signed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/proxy/policy"
)

// Content reads what belongs to an image from its repository. Its methods may be called by several
// goroutines.
type Content interface {
	// Referrers lists the referrers of the image, by the OCI 1.1 API or its fallback by tag. An empty list
	// means that the upstream said so.
	Referrers(ctx context.Context, image policy.Image) ([]ocispec.Descriptor, error)
	// Manifest reads a manifest of the image's repository by tag or digest. The error is fs.ErrNotExist if
	// the upstream says that there is none.
	Manifest(ctx context.Context, image policy.Image, reference string) (ocispec.Descriptor, []byte, error)
	// Blob reads a small blob of the image's repository. The error is fs.ErrNotExist if the upstream
	// says that there is none.
	Blob(ctx context.Context, image policy.Image, dgst digest.Digest) ([]byte, error)
}

// reader reads the signatures of an image, each within a bound.
type reader struct {
	content Content
	image   policy.Image
	maxSize int64
}

// maxReferrers bounds the list of referrers. OCI's registries give pages of a hundred and less; an image
// has a few.
const maxReferrers = 2000

func (r *reader) referrers(ctx context.Context) ([]ocispec.Descriptor, error) {
	all, err := r.content.Referrers(ctx, r.image)
	if err != nil {
		return nil, fmt.Errorf("list the referrers: %w", err)
	}
	var valid []ocispec.Descriptor
	for _, d := range all[:min(len(all), maxReferrers)] {
		if d.Digest.Validate() == nil {
			valid = append(valid, d)
		}
	}
	return valid, nil
}

// subject returns the descriptor of the image.
func (r *reader) subject(ctx context.Context) (ocispec.Descriptor, error) {
	d, _, err := r.content.Manifest(ctx, r.image, r.image.Digest.String())
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("read the manifest: %w", err)
	}
	if d.Digest != r.image.Digest {
		return ocispec.Descriptor{}, fmt.Errorf("read the manifest: its digest is %s", d.Digest)
	}
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, nil
}

// manifest reads the manifest of a signature. A reference that is no digest may name nothing:
// fs.ErrNotExist.
func (r *reader) manifest(ctx context.Context, reference string) (ocispec.Descriptor, ocispec.Manifest, error) {
	var m ocispec.Manifest
	d, raw, err := r.content.Manifest(ctx, r.image, reference)
	if err != nil {
		return ocispec.Descriptor{}, m, fmt.Errorf("read the signature %s: %w", reference, err)
	}
	if int64(len(raw)) > r.maxSize {
		return d, m, refused("its manifest has %d bytes, more than are looked at", len(raw))
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return d, m, refused("its manifest cannot be parsed: %v", err)
	}
	return d, m, nil
}

// single reads the only layer of the signature with a descriptor.
func (r *reader) single(ctx context.Context, d ocispec.Descriptor) (ocispec.Descriptor, []byte, error) {
	_, m, err := r.manifest(ctx, d.Digest.String())
	if errors.Is(err, fs.ErrNotExist) {
		err = refused("its manifest is missing upstream")
	}
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	if len(m.Layers) != 1 {
		return ocispec.Descriptor{}, nil, refused("it has %d layers in place of one", len(m.Layers))
	}
	raw, err := r.layer(ctx, m.Layers[0])
	return m.Layers[0], raw, err
}

// layer reads a layer of a signature.
func (r *reader) layer(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > r.maxSize {
		return nil, refused("it has %d bytes, more than are looked at", d.Size)
	}
	if err := d.Digest.Validate(); err != nil {
		return nil, refused("its layer has no digest: %v", err)
	}
	raw, err := r.content.Blob(ctx, r.image, d.Digest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, refused("its layer is missing upstream")
	case err != nil:
		return nil, fmt.Errorf("read the signature %s: %w", d.Digest, err)
	case int64(len(raw)) > r.maxSize:
		return nil, refused("it has %d bytes, more than are looked at", len(raw))
	case d.Digest.Algorithm().FromBytes(raw) != d.Digest:
		return nil, refused("its layer has another digest")
	}
	return raw, nil
}
