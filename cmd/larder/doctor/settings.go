package doctor

import (
	"context"
	"errors"
	"io/fs"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/ecr"
	"github.com/larder-registry/larder/upstream/name"
)

// settings examines the settings of an ECR registry that Larder heeds. ECR shows them to
// its own account only.
type settings struct {
	registry *upstream.Registry
	entry    config.Upstream
	image    name.Image // whose host is the registry's
	caller   ecr.Caller
}

// fromAPI are the steps that a call of the ECR API needs.
var fromAPI = []string{"aws-config", "ecr-api", "credentials"}

// foreign reports whether the registry is known to belong to another account than the
// credentials.
func (s settings) foreign() bool {
	host, _ := name.ParseECR(s.image.Host)
	own := s.caller.Account()
	return host.Account != "" && own != "" && host.Account != own
}

const anotherAccount = "the registry belongs to another account, whose settings ECR does not show to these credentials"

// unknown is the finding of a setting that could not be read.
func unknown(err error) finding {
	if errors.Is(err, fs.ErrPermission) {
		return finding{Skipped, "not known: " + err.Error(), "To find out, allow it: see the statement Registry in deploy/iam/pull-with-hints.json."}
	}
	return warning("not known: "+err.Error(), "Pulls do not need it. See the steps above, and try again.")
}

// checkKeepAlive examines whether ECR records the pulls that keep images in use.
func (s settings) checkKeepAlive(e *examination) {
	e.step("keep-alive", fromAPI, func(ctx context.Context) finding {
		switch {
		case s.entry.KeepAlive() == 0:
			return skipped("off, by ecr.keep_alive")
		case s.foreign():
			return skipped(anotherAccount)
		}
		principal, err := s.registry.ECR().PullTimeExclusion(ctx)
		switch {
		case err != nil:
			return unknown(err)
		case principal != "":
			return warning("ECR does not record pulls by "+principal+": images that only the cache serves look unused to it",
				"Take the principal off the registry's pull-time update exclusions, or have no lifecycle rule count from the last pull (sinceImagePulled).")
		}
		return passed("ECR records pulls by these credentials")
	})
}
