package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/larder-registry/larder/config"
)

// checkPolicy finds out whether the policy can be walked around on this machine. Without an enforced rule
// there is no such step.
func checkPolicy(e *examination, cfg *config.Config, opts Options) {
	isEnforced := func(p config.Policy) bool { return p.Mode == config.PolicyEnforce && p.HasConditions() }
	if opts.Fallbacks == nil || !slices.ContainsFunc(cfg.Policy, isEnforced) {
		return
	}
	e.step("policy", nil, func(context.Context) finding {
		files := opts.Fallbacks(cfg)
		if len(files) == 0 {
			return passed("no hosts.toml file lets containerd ask a registry for what the policy refuses")
		}
		path, err := opts.Verifier()
		if err == nil {
			return passed("containerd, from 2.1 on, asks %s before it pulls, whichever registry it pulls from", path)
		}
		return warning(fmt.Sprintf("containerd asks the registry for what the policy refuses: %s; %v", strings.Join(files, ", "), err),
			"Run larder mirror --only, or have containerd 2 ask larder-verify: see OPERATIONS.md, Policies about images.")
	})
}
