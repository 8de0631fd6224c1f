package main

import (
	"io"

	"github.com/alecthomas/kong"

	"github.com/larder-registry/larder/cmd/larder/completion"
)

// completionCommand is "larder completion".
type completionCommand struct {
	Shell string `arg:"" enum:"${shells}" help:"The shell: ${shells}."`
}

// Help is what kong shows below the usage.
func (*completionCommand) Help() string {
	return "Examples:\n\n" +
		"    source <(larder completion bash)\n" +
		"    larder completion fish | source"
}

// Run prints the script.
func (c *completionCommand) Run(p *invocation, app *kong.Kong) error {
	script, err := completion.Script(app.Model, c.Shell)
	if err != nil {
		return err
	}
	_, err = io.WriteString(p.stdout, script)
	return err
}
