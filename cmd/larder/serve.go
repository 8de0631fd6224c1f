package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/larder-registry/larder/cmd/internal/daemon"
)

// serveCommand is "larder serve".
type serveCommand struct {
	settings
}

// Run serves until the context ends, then drains. Nobody need read the log: a reader that is
// slow or gone costs lines, and nothing else.
func (c *serveCommand) Run(p *invocation) error {
	cfg, err := c.load(p.env)
	if err != nil {
		return err
	}
	useProcessors(p.env)
	defer surviveClosedLog()()
	lines := daemon.NewLogWriter(p.stderr)
	defer lines.Close()
	log := daemon.NewLogger(cfg.Log, lines)
	lines.OnDrop(func(n int) { log.Warn("lines of the log were dropped: nobody read them in time", "lines", n) })
	d, err := daemon.New(p.ctx, cfg, daemon.Options{
		Version:        currentVersion(),
		Env:            p.env,
		Log:            log,
		ServiceManager: true,
	})
	if err != nil {
		return err
	}
	return errors.Join(d.Serve(p.ctx), d.Close())
}

// surviveClosedLog keeps the process running when the reader of its standard error has gone,
// until end is called: package os/signal says that SIGPIPE ends it otherwise. Programs that
// it starts get the default, which ignoring the signal would change for them too.
func surviveClosedLog() (end func()) {
	pipe := make(chan os.Signal, 1) // never read: the write fails as well
	signal.Notify(pipe, syscall.SIGPIPE)
	return func() { signal.Stop(pipe) }
}
