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
func checkPolicy(e *examination, cfg *config.Config, fallbacks func(*config.Config) []string) {
	isEnforced := func(p config.Policy) bool { return p.Mode == config.PolicyEnforce && p.HasConditions() }
	if fallbacks == nil || !slices.ContainsFunc(cfg.Policy, isEnforced) {
		return
	}
	e.step("policy", nil, func(context.Context) finding {
		files := fallbacks(cfg)
		if len(files) == 0 {
			return passed("no hosts.toml file lets containerd ask a registry for what the policy refuses")
		}
		return warning(fmt.Sprintf("containerd asks the registry for what the policy refuses: %s", strings.Join(files, ", ")),
			"Run larder mirror --only, or have containerd 2 ask larder-verify: see OPERATIONS.md, Policies about images.")
	})
}
