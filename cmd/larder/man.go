package main

import (
	"io"

	"github.com/alecthomas/kong"

	"github.com/larder-registry/larder/cmd/larder/manual"
)

// manCommand is "larder man", which is for the makers of packages.
type manCommand struct{}

// Run prints the manual page.
func (manCommand) Run(p *invocation, app *kong.Kong) error {
	_, err := io.WriteString(p.stdout, manual.Page(app.Model, currentVersion()))
	return err
}
