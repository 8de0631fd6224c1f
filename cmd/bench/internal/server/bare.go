package server

import (
	"context"
	"os/exec"

	"github.com/larder-registry/larder/cmd/bench/internal/bare"
	"github.com/larder-registry/larder/cmd/bench/internal/process"
)

// Bare is the bare Go server: this program again.
func Bare() *Program {
	return &Program{
		name: "bare-go",
		command: func(ctx context.Context, in place) (*exec.Cmd, error) {
			cmd, err := process.Self(ctx, bare.Command, "--listen", in.addr, "--dir", in.dir,
				"--upstream", in.upstream.Endpoint, "--authorization", in.upstream.Authorization())
			if err == nil {
				cmd.Env = append(cmd.Environ(), in.upstream.Environment()...)
			}
			return cmd, err
		},
	}
}
