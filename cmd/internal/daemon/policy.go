package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cmd/internal/daemon/upkeep"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/admin/answer"
	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/upstream/name"
)

// policyFile is the file in the cache's folder with the decisions of the policy.
const policyFile = "policy.json"

// openPolicy returns the policy, without rules yet.
func openPolicy(cfg *config.Config, store *cache.Store, pushed *upkeep.PushTimes, meter metric.MeterProvider, log *slog.Logger) (*policy.Policy, error) {
	return policy.New(policy.Options{
		File: filepath.Join(cfg.Cache.Dir, policyFile),
		Pushed: func(ctx context.Context, image policy.Image) (time.Time, bool, error) {
			return pushed.Ask(ctx, cache.Repository{Upstream: image.Host, Name: image.Repository}, image.Digest)
		},
		Seen:  func(image policy.Image) (time.Time, bool) { return store.FetchedAt(image.Digest) },
		Meter: meter,
		Log:   log,
	})
}

// usePolicy puts the rules of a configuration to use. If there is an error, those before stay.
func (d *Daemon) usePolicy(cfg *config.Config) error {
	rules, err := policyRules(cfg, policySources{d.proxy.Attachments(), d.services, d.presence.isOffline, d.client.Registry})
	if err == nil {
		d.policy.Use(rules)
	}
	return err
}

// Verified is the answer to GET /api/v1/policy/verify.
type Verified struct {
	Image string `json:"image"`
	// Covered says that a rule covers the image. Without one it is served.
	Covered bool `json:"covered"`
	// Served says that clients get the image: it is allowed, or the rule's mode is warn.
	Served   bool             `json:"served"`
	Decision *policy.Decision `json:"decision,omitempty"`
}

// addPolicy adds the requests for the decisions of the policy, for the images that it does not allow, and for its decision
// about one image, whose full name is the parameter image.
func addPolicy(mux *http.ServeMux, rules *policy.Policy, p *proxy.Proxy) {
	mux.HandleFunc("GET /api/v1/policy", func(w http.ResponseWriter, _ *http.Request) {
		answer.JSON(w, rules.Decisions())
	})
	mux.HandleFunc("GET /api/v1/policy/denied", func(w http.ResponseWriter, _ *http.Request) {
		answer.JSON(w, rules.Denied())
	})
	mux.HandleFunc("GET /api/v1/policy/verify", func(w http.ResponseWriter, r *http.Request) {
		v, err := verify(r.Context(), p, r.URL.Query().Get("image"))
		switch {
		case errors.Is(err, name.ErrImage):
			answer.RefuseWith(w, http.StatusBadRequest, err)
		case errors.Is(err, fs.ErrNotExist):
			answer.Refuse(w, err)
		case err != nil:
			answer.RefuseWith(w, http.StatusServiceUnavailable, err)
		default:
			answer.JSON(w, v)
		}
	})
}

// verify returns what the policy says about an image with a full name. An image that no rule covers is
// not asked for.
func verify(ctx context.Context, p *proxy.Proxy, image string) (Verified, error) {
	parsed, err := name.ParseImage(image)
	if err != nil {
		return Verified{}, fmt.Errorf("%q: %w", image, err)
	}
	v := Verified{Image: parsed.String(), Served: true}
	repo := cache.Repository{Upstream: parsed.Host, Name: parsed.Repository}
	if v.Decision, err = p.Verify(ctx, repo, parsed.Reference()); err != nil || v.Decision == nil {
		return v, err
	}
	v.Covered = true
	v.Served = v.Decision.Result == policy.Allowed || v.Decision.Mode == policy.Warn
	return v, nil
}

// VerifyAlone returns what can be said about an image without a daemon: whether an enforced rule
// covers it.
func VerifyAlone(cfg *config.Config, image name.Image) (rule config.Policy, covered bool) {
	rule, covered = cfg.PolicyOf(image.Host, image.Repository)
	return rule, covered && rule.Mode == config.PolicyEnforce
}
