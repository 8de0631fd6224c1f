package server

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/larder-registry/larder/cmd/bench/internal/process"
)

const distributionModule = "github.com/distribution/distribution/v3"

// Distribution is distribution's registry as a proxy: the binary at path, or if path is empty one that is built from the
// version of its module that this module requires.
func Distribution(path string) *Program {
	return &Program{
		name:    "distribution",
		install: findOrBuild(&path, "registry", buildDistribution),
		command: func(ctx context.Context, in place) (*exec.Cmd, error) {
			user, password, err := in.upstream.Login()
			if err != nil {
				return nil, err
			}
			file := filepath.Join(in.dir, "registry.yml")
			config := fmt.Sprintf(distributionConfig, filepath.Join(in.dir, "data"), in.addr, in.upstream.Endpoint, user, password)
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				return nil, err
			}
			cmd := exec.CommandContext(ctx, path, "serve", file)
			cmd.Env = []string{"HOME=" + in.dir, "OTEL_TRACES_EXPORTER=none"}
			cmd.Env = append(cmd.Env, in.upstream.Environment()...)
			return cmd, nil
		},
	}
}

func buildDistribution(ctx context.Context, path string) error {
	version, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", distributionModule).Output()
	if err != nil {
		return fmt.Errorf("find the version of %s: %w", distributionModule, err)
	}
	// Outside of this module, which does not require everything that the registry is built from. go install names the
	// binary by its package: registry.
	return process.Run(ctx, []string{"GOBIN=" + filepath.Dir(path), "GOFLAGS="}, "go", "install",
		distributionModule+"/cmd/registry@"+strings.TrimSpace(string(version)))
}

// distributionConfig is the example in the registry's documentation, as a proxy.
const distributionConfig = `version: 0.1
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: %q}
http: {addr: %q}
proxy:
  remoteurl: %q
  username: %q
  password: %q
`
