package carry

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
	"github.com/larder-registry/larder/upstream/name"
)

// resume holds what was planned before. It fetches what was evicted since, if it can.
func (a *API) resume(ctx context.Context, hold *cache.Hold, req ExportRequest, progress func(done, total int64)) error {
	missing, err := hold.Add(req.Contents...)
	if err != nil || len(missing) == 0 {
		return err
	}
	if a.opts.Bringer == nil {
		return lacking(missing, errNotRunning)
	}
	var failures []error
	for _, planned := range req.Planned {
		if err := a.fetchMissing(ctx, hold, planned, missing, progress); err != nil {
			failures = append(failures, fmt.Errorf("fetch what is missing of %s: %w", planned.Name, err))
		}
		if missing, err = hold.Add(req.Contents...); err != nil || len(missing) == 0 {
			return err
		}
	}
	if failures == nil {
		failures = append(failures, errNotKept)
	}
	return lacking(missing, errors.Join(failures...))
}

var (
	errNotRunning = errors.New("the daemon, which would fetch them, is not running: start it")
	errNotKept    = errors.New("the cache did not keep what it fetched, or no planned image names them: see cache.max_size")
)

// lacking is the error for an export that cannot go on for a reason.
func lacking(missing []digest.Digest, reason error) error {
	return fmt.Errorf("the cache does not have %d blobs any more that were planned, such as %s: %w; "+
		"once that is solved, the same command goes on; to plan anew, remove what the interrupted export left",
		len(missing), missing[0], reason)
}

// fetchMissing fetches what is missing of an image.
func (a *API) fetchMissing(ctx context.Context, hold *cache.Hold, planned ExportImage, missing []digest.Digest, progress func(done, total int64)) error {
	image, err := name.ParseImage(planned.Name)
	if err != nil {
		return err
	}
	roots := append([]digest.Digest{planned.Digest}, planned.Referrers...)
	for _, root := range roots {
		if err := cache.CheckDigest(root); err != nil {
			return fmt.Errorf("%q: %w", root, err)
		}
	}
	wanted := make(map[digest.Digest]bool, len(missing))
	for _, d := range missing {
		wanted[d] = true
	}
	return a.opts.Bringer.FetchMissing(ctx, image, roots, wanted, manifests(hold), func(all []bring.Progress) {
		progress(bring.Sum(all))
	})
}
