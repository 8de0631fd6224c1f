package server

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/larder-registry/larder/cmd/bench/internal/load"
	"github.com/larder-registry/larder/cmd/bench/internal/process"
	"github.com/larder-registry/larder/cmd/bench/internal/upstream"
)

// Larder is a binary of Larder: the one at path, or one that is built from this module if path is empty.
func Larder(name, path string) *Program {
	return &Program{
		name: name,
		install: findOrBuild(&path, "larder", func(ctx context.Context, to string) error {
			return process.Run(ctx, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, module+"/cmd/larder")
		}),
		command: func(ctx context.Context, in place) (*exec.Cmd, error) {
			if err := os.WriteFile(larderFile(in), []byte(larderYAML(in)), 0o600); err != nil {
				return nil, err
			}
			cmd := exec.CommandContext(ctx, path, "serve", "--config", larderFile(in))
			cmd.Env = []string{"HOME=" + in.dir, "LARDER_CONFIG=", "AWS_ACCESS_KEY_ID=" + upstream.AccessKey, "AWS_SECRET_ACCESS_KEY=" + upstream.SecretKey}
			cmd.Env = append(cmd.Env, in.upstream.Environment()...)
			return cmd, nil
		},
		// containerd asks a mirror with this query.
		target: func(t *load.Target, u *upstream.Upstream) { t.Query = "?ns=" + u.Host },
		scrub: func(ctx context.Context, in place) error {
			return process.Run(ctx, nil, path, "scrub", "--config", larderFile(in))
		},
	}
}

const module = "github.com/larder-registry/larder"

func larderFile(in place) string { return filepath.Join(in.dir, "larder.yaml") }

// larderYAML returns a configuration with as many defaults as possible.
func larderYAML(in place) string {
	yaml := fmt.Sprintf(`listen: %s
admin: %s
upstreams:
  - host: %[4]s
    endpoint: %[5]s
    ecr: {api_endpoint: "%[5]s", region: %[6]s}
cache:
  dir: %[3]s
`, in.addr, in.admin, filepath.Join(in.dir, "cache"), in.upstream.Host, in.upstream.Endpoint, upstream.Region)
	if in.maxSize > 0 {
		yaml += fmt.Sprintf("  max_size: %dB\n", in.maxSize)
	}
	return yaml
}
