package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/probe"
)

// firstBytes is how much of a layer is fetched.
const firstBytes = 1024

// checkImage pulls the beginning of an image.
func checkImage(e *examination, r *upstream.Registry, image name.Image) {
	var layer ocispec.Descriptor
	e.step("manifest", []string{"registry", "token"}, func(ctx context.Context) finding {
		m, detail, err := platformManifest(ctx, r, image)
		if err != nil {
			return failed(err, adviceOnManifest(err))
		}
		if layer = m.Config; len(m.Layers) > 0 {
			layer = m.Layers[0]
		}
		return finding{status: OK, detail: detail}
	})
	showRateLimit(e, r)
	const direct = "the registry sends layers itself"
	var origin string // scheme and host
	e.step("redirect", []string{"manifest"}, func(ctx context.Context) finding {
		var err error
		if origin, err = r.Diagnosis().Locate(ctx, image.Repository, layer.Digest); err != nil {
			return failed(err, adviceOnLayer(err))
		}
		if origin == r.Diagnosis().BaseURL() {
			return skipped(direct)
		}
		return passed("layers are at %s", origin)
	})
	switch cause := e.causes["redirect"]; {
	case cause != "":
		skipConnection(e, storage, skippedAfter(cause))
	case origin == r.Diagnosis().BaseURL():
		skipConnection(e, storage, skipped(direct))
	default:
		connect(e, storage, Failed, func(ctx context.Context) probe.Connection { return r.Diagnosis().ConnectTo(ctx, origin) })
	}
	e.step("layer", []string{"redirect", storage}, func(ctx context.Context) finding {
		return fetchBeginning(ctx, r, image.Repository, layer)
	})
}

// platformManifest returns the manifest of an image for this platform, or for
// another one if there is none.
func platformManifest(ctx context.Context, r *upstream.Registry, image name.Image) (m ocispec.Manifest, detail string, err error) {
	desc, body, err := r.Manifest(ctx, image.Repository, image.Reference(), false)
	if err != nil {
		return m, "", err
	}
	detail = fmt.Sprintf("%s, %s", desc.Digest, desc.MediaType)
	var index ocispec.Index
	if err := json.Unmarshal(body, &index); err != nil {
		return m, "", fmt.Errorf("read the manifest: %w", err)
	}
	if len(index.Manifests) > 0 {
		child := chooseManifest(index.Manifests)
		if _, body, err = r.Manifest(ctx, image.Repository, child.Digest.String(), false); err != nil {
			return m, "", fmt.Errorf("the index lists it: %w", err)
		}
		detail += fmt.Sprintf(" of %d; of these %s%s", len(index.Manifests), child.Digest, platformOf(child))
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return m, "", fmt.Errorf("read the manifest: %w", err)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := d.Digest.Validate(); err != nil {
			return m, "", fmt.Errorf("the manifest names no valid layers: %w", err)
		}
	}
	return m, detail, nil
}

// chooseManifest returns the manifest for this platform, else one for any platform:
// attestations are for none.
func chooseManifest(manifests []ocispec.Descriptor) ocispec.Descriptor {
	for _, fits := range []func(ocispec.Platform) bool{
		func(p ocispec.Platform) bool { return p.OS == "linux" && p.Architecture == runtime.GOARCH },
		func(p ocispec.Platform) bool { return p.OS != "unknown" },
	} {
		i := slices.IndexFunc(manifests, func(d ocispec.Descriptor) bool { return d.Platform != nil && fits(*d.Platform) })
		if i >= 0 {
			return manifests[i]
		}
	}
	return manifests[0]
}

func platformOf(d ocispec.Descriptor) string {
	if d.Platform == nil {
		return ""
	}
	return " for " + d.Platform.OS + "/" + d.Platform.Architecture
}

// showRateLimit adds a step about the limit that the registry sent, if it did.
func showRateLimit(e *examination, r *upstream.Registry) {
	limit, ok := r.RateLimit()
	if !ok {
		return
	}
	detail := fmt.Sprintf("%d of %d pulls are left", limit.Remaining, limit.Limit)
	if limit.Window > 0 {
		detail += fmt.Sprintf(" in %v", limit.Window)
	}
	if limit.Source != "" {
		detail += ", counted for " + limit.Source
	}
	f := finding{status: OK, detail: detail}
	if limit.Remaining == 0 {
		f = warning(detail, "Pulls are refused until the window ends. Log in (auth of this upstream), or pull from a mirror of these images such as ECR Public.")
	}
	e.add("rate-limit", f, 0)
}

// fetchBeginning fetches the first bytes of a layer as a pull does.
func fetchBeginning(ctx context.Context, r *upstream.Registry, repository string, layer ocispec.Descriptor) finding {
	began := time.Now()
	n := min(firstBytes, layer.Size)
	content, err := r.OpenBlob(ctx, repository, layer.Digest, upstream.Range{Len: max(n, 1)})
	if err != nil {
		return failed(err, "The storage behind the registry refuses or breaks off. If S3 is reached through a VPC endpoint, its policy must allow s3:GetObject on the registry's layer bucket.")
	}
	body := content.Body
	stop := context.AfterFunc(ctx, func() { body.Close() })
	defer stop()
	defer body.Close()
	got, err := io.CopyN(io.Discard, body, n)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return failed(fmt.Errorf("after %d of %d bytes: %w", got, n, err), "Something on the way cuts or holds connections to the storage: check proxies, firewalls and the MTU.")
	}
	return passed("%d bytes of %s in %v", got, shorten(layer.Digest), time.Since(began).Round(time.Millisecond))
}

// shorten leaves enough of a valid digest to tell layers apart.
func shorten(d digest.Digest) string { return d.Algorithm().String() + ":" + d.Encoded()[:12] }
