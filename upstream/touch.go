package upstream

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/pace"
	"github.com/larder-registry/larder/upstream/reply"
)

// Touch has ECR note that a manifest is in use: it fetches the manifest, and
// nothing else, from this very registry and none of its replicas. ECR publishes
// no list of what counts as a pull for its lifecycle policies; the GET of a
// manifest is what every client's pull has in common, where a HEAD may be a
// mere look. It is fs.ErrNotExist where the registry has no such manifest, or no
// ECR authentication. It is in the background of what clients wait for.
func (r *Registry) Touch(ctx context.Context, repository string, dgst digest.Digest) error {
	if _, ok := r.auth.(*ecrAuth); !ok {
		return fmt.Errorf("touch an image at %s, which is not ECR: %w", r.host, fs.ErrNotExist)
	}
	ctx, cancel := context.WithTimeoutCause(pace.Background(ctx), r.timeout, reply.ErrTimeout)
	defer cancel()
	_, _, err := r.manifest(ctx, repository, dgst.String(), false)
	return err
}
