package upkeep

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/larder-registry/larder/upstream/ecr"
)

// exclusions knows which registries do not record the pulls of Larder's credentials:
// their owner has excluded them. It belongs to one goroutine.
type exclusions struct {
	log     *slog.Logger
	denials *denials
	of      map[string]exclusion // by host
}

type exclusion struct {
	principal string    // that is excluded; "" for none, and if that is not known
	next      time.Time // when to ask again
}

// askExclusions is how often the list of a registry is read again, or asked for again
// after a denial.
const askExclusions = 24 * time.Hour

func newExclusions(log *slog.Logger) *exclusions {
	return &exclusions{
		log: log,
		denials: newDenials(log, "whether ECR records the pulls that keep images in use is not known, and they go on: "+
			"to change that allow ecr:ListPullTimeUpdateExclusions, and to silence this set ecr.keep_alive to 0"),
		of: make(map[string]exclusion),
	}
}

// has reports whether a registry is known not to record these pulls. It says so when that
// changes. Without an answer the last one holds.
func (x *exclusions) has(ctx context.Context, host string, registry *ecr.Registry, now time.Time) bool {
	last := x.of[host]
	if now.Before(last.next) {
		return last.principal != ""
	}
	principal, err := registry.PullTimeExclusion(ctx)
	switch {
	case errors.Is(err, fs.ErrPermission):
		x.denials.say(host, err)
		x.of[host] = exclusion{next: now.Add(askExclusions)}
		return false
	case err != nil:
		x.log.Debug("whether ECR records these pulls could not be read", "upstream", host, "error", err)
		return last.principal != ""
	}
	x.of[host] = exclusion{principal, now.Add(askExclusions)}
	switch {
	case principal != "" && principal != last.principal:
		x.log.Warn("ECR does not record pulls by these credentials, so images that only the cache serves look unused: "+
			"rules that count from the last pull archive them, unless the principal is taken off the registry's pull-time update exclusions",
			"upstream", host, "principal", principal)
	case principal == "" && last.principal != "":
		x.log.Info("ECR records pulls by these credentials again", "upstream", host, "principal", last.principal)
	}
	return principal != ""
}
