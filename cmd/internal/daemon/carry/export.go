package carry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
	"github.com/larder-registry/larder/proxy/admin/answer"
	"github.com/larder-registry/larder/upstream/name"
)

// ExportRequest is the body of POST /api/v1/exports.
type ExportRequest struct {
	Images []string `json:"images"` // full names
	// Platforms are those of indexes that are exported, such as linux/arm64; [bring.All] is for
	// all. Without any, those that are whole in the cache are.
	Platforms []string `json:"platforms,omitempty"`
	// Referrers are exported with the images: signatures, attestations, SBOMs, and cosign's
	// tags.
	Referrers bool `json:"referrers,omitempty"`
	// Contents are blobs and manifests that are exported as well: those of a plan that was
	// made before.
	Contents []digest.Digest `json:"contents,omitempty"`
	// Planned are the images of that plan. What the cache does not have any more of Contents is
	// fetched from their repositories.
	Planned []ExportImage `json:"planned,omitempty"`
}

// ExportReport is a line of the answer to POST /api/v1/exports: the progress, or in the last
// one the result or an error. After a result the answer goes on, without a line, until the
// client leaves. The session of the ID holds the images until then.
type ExportReport struct {
	Progress *Progress     `json:"progress,omitempty"`
	ID       string        `json:"id,omitempty"`
	Images   []ExportImage `json:"images,omitempty"`
	Error    string        `json:"error,omitempty"`
}

// ExportImage is an image that is exported.
type ExportImage struct {
	Name      string        `json:"name"`
	Digest    digest.Digest `json:"digest"`
	Confirmed time.Time     `json:"confirmed,omitzero"` // by the upstream, if it is a tag
	// LeftOut are the platforms and attestations of an index that are not exported.
	LeftOut []digest.Digest `json:"leftOut,omitempty"`
	// Referrers are the manifests that are exported with it.
	Referrers []digest.Digest `json:"referrers,omitempty"`
}

// maxRequest is the size of the largest request of an export, in bytes. It is enough for the
// contents of the largest bundle.
const maxRequest = 32 << 20

// export opens a session.
func (a *API) export(w http.ResponseWriter, r *http.Request) error {
	var req ExportRequest
	if err := answer.Read(r, maxRequest, &req); err != nil {
		return err
	}
	hold, err := a.store.Hold()
	if err != nil {
		return err
	}
	defer hold.Close()
	lines := answer.NewLines(w)
	images, err := a.resolve(r.Context(), hold, req, progressTo(lines))
	if err != nil {
		lines.Send(ExportReport{Error: err.Error()})
		return nil
	}
	id, remove := a.exports.add(hold)
	defer remove()
	lines.Send(ExportReport{ID: id, Images: images})
	<-r.Context().Done()
	return nil
}

// resolve finds images in the cache, fetches what is missing of them if it can, and holds all
// of them. The error names each one that is not whole.
func (a *API) resolve(ctx context.Context, hold *cache.Hold, req ExportRequest, progress func(done, total int64)) ([]ExportImage, error) {
	wanted, err := a.choose(req)
	if err != nil {
		return nil, err
	}
	why, err := a.bring(ctx, hold, req, wanted, progress)
	if err != nil {
		return nil, err
	}
	var images []ExportImage
	var errs []error
	for _, image := range req.Images {
		found, err := a.find(hold, image, wanted)
		if err == nil && req.Referrers {
			var tags []ExportImage
			found.Referrers, tags, err = a.referrers(ctx, hold, found)
			images = append(images, tags...)
		}
		if err != nil {
			errs = append(errs, errors.Join(fmt.Errorf("export %s: %w", image, err), why[image]))
			continue
		}
		images = append(images, found.ExportImage)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return unique(images), a.resume(ctx, hold, req, progress)
}

// unique sorts images by their names, and leaves out those that come twice.
func unique(images []ExportImage) []ExportImage {
	slices.SortFunc(images, func(a, b ExportImage) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(images, func(a, b ExportImage) bool { return a.Name == b.Name })
}

// bring fetches images that are not whole in the cache. It returns why some could not be
// fetched.
func (a *API) bring(ctx context.Context, hold *cache.Hold, req ExportRequest, wanted choice, progress func(done, total int64)) (map[string]error, error) {
	if a.opts.Bringer == nil {
		return nil, nil
	}
	platforms, err := bring.ParsePlatforms(req.Platforms)
	if err != nil {
		return nil, err
	}
	var lacking []bring.Image
	for _, text := range req.Images {
		if _, err := a.find(hold, text, wanted); err == nil {
			continue
		}
		image, err := name.ParseImage(text)
		if err != nil {
			return nil, err
		}
		lacking = append(lacking, bring.Image{Image: image, Platforms: platforms, Referrers: req.Referrers})
	}
	why := make(map[string]error)
	if lacking == nil {
		return why, nil
	}
	results := a.opts.Bringer.Bring(ctx, lacking, func(all []bring.Progress) {
		progress(bring.Sum(all))
	})
	for _, result := range results {
		if result.Err != nil {
			why[result.Image] = fmt.Errorf("it could not be fetched: %w", result.Err)
		}
	}
	return why, nil
}

// exported answers with the content of a blob or a manifest. It may be damaged: the client
// compares it with its digest.
func (a *API) exported(w http.ResponseWriter, r *http.Request) error {
	hold, done, err := a.exports.use(r)
	if err != nil {
		return err
	}
	defer done()
	blob, err := hold.Open(digest.Digest(r.PathValue("digest")))
	if err != nil {
		return withoutPath(digest.Digest(r.PathValue("digest")), err)
	}
	defer blob.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(blob.Size, 10))
	if _, err := io.Copy(w, blob); err != nil && r.Context().Err() == nil {
		a.opts.Log.Error("a blob could not be exported", "digest", r.PathValue("digest"), "error", err)
	}
	return nil
}
