package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const distributionModule = "github.com/distribution/distribution/v3"

// distribution is distribution's registry as a proxy: the binary at path, or where that is empty one built from the
// version of its module that Larder takes its vocabulary from.
func distribution(path string) *contender {
	return &contender{
		name: "distribution",
		begin: func(ctx context.Context, l *lab) error {
			if path != "" {
				_, err := os.Stat(path)
				return err
			}
			path = filepath.Join(l.dir, "registry")
			version, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", distributionModule).Output()
			if err != nil {
				return fmt.Errorf("find the version of %s: %w", distributionModule, err)
			}
			// Outside of this module, which need not know what the registry is built from.
			return command(ctx, []string{"GOBIN=" + l.dir, "GOFLAGS="}, "go", "install",
				distributionModule+"/cmd/registry@"+strings.TrimSpace(string(version)))
		},
		start: func(ctx context.Context, l *lab, in place) (*exec.Cmd, error) {
			raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(l.upstream.token, "Basic "))
			if err != nil {
				return nil, err
			}
			user, password, _ := strings.Cut(string(raw), ":")
			file := filepath.Join(in.dir, "registry.yml")
			config := fmt.Sprintf(distributionConfig, filepath.Join(in.dir, "data"), in.addr, l.upstream.Endpoint, user, password)
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				return nil, err
			}
			cmd := exec.CommandContext(ctx, path, "serve", file)
			cmd.Env = []string{"HOME=" + in.dir, "OTEL_TRACES_EXPORTER=none"}
			return cmd, nil
		},
	}
}

// distributionConfig is the registry's own example, as a proxy.
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
