package doctor

import (
	"context"
	"time"

	"github.com/larder-registry/larder/cmd/internal/daemon/share"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/bucket"
	"github.com/larder-registry/larder/upstream/name"
)

// Options are what is examined.
type Options struct {
	// Load reads the configuration. source says where it is from.
	Load func() (cfg *config.Config, source string, err error)

	// Image is pulled in part. The zero value means all upstreams that are one host,
	// without an image.
	Image name.Image

	// Fallbacks returns the files by which containerd gets from a registry what the policy refuses. It may
	// be nil.
	Fallbacks func(*config.Config) []string

	// Verifier returns the image verifier by which containerd asks Larder before it pulls, or why it asks none. It is called if
	// Fallbacks is set.
	Verifier func() (path string, err error)

	// Peers greets other nodes. It may be nil.
	Peers func(ctx context.Context, cfg *config.Config) (share.Check, error)

	// Bucket tries the configured bucket. It may be nil.
	Bucket func(ctx context.Context, cfg *config.Config) (bucket.Check, error)

	// Timeout bounds each step; more than 0.
	Timeout time.Duration

	// Show is called with each step when it is done. It may be nil.
	Show func(Step)
}

// Examine takes all steps and returns them. When ctx ends the steps left fail.
func Examine(ctx context.Context, opts Options) []Step {
	e := newExamination(ctx, opts.Timeout, opts.Show)
	if cfg := checkConfiguration(e, opts.Load); cfg != nil {
		checkFolder(e, cfg)
		checkProxies(e)
		checkLink(e, cfg)
		checkClients(e, cfg)
		checkPolicy(e, cfg, opts)
		checkPeers(e, cfg, opts.Peers)
		checkBucket(e, cfg, opts.Bucket)
		checkUpstreams(e, cfg, opts.Image)
	}
	return e.steps
}
