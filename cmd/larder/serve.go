package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/larder-registry/larder/cmd/internal/daemon"
)

// serveCommand is "larder serve".
type serveCommand struct {
	settings
}

// Help is what kong shows below the usage.
func (*serveCommand) Help() string {
	return "Every key of the configuration file that has one value can be set by a variable, too: LARDER_CACHE_DIR is cache.dir. Flags come before variables, and variables before the file.\n\nExamples:\n\n" +
		"    larder serve\n" +
		"    larder serve --cache-dir /mnt/images --max-size 80%\n" +
		"    larder serve --config /etc/larder/larder.yaml --listen 127.0.0.1:6000"
}

// Run serves until the context ends, then drains. Nobody need read the log: a reader that is
// slow or gone costs lines, and nothing else.
func (c *serveCommand) Run(p *invocation) error {
	cfg, _, err := c.load(p)
	if err != nil {
		return err
	}
	useProcessors(p.environ())
	defer surviveClosedLog()()
	lines := daemon.NewLogWriter(p.stderr)
	defer lines.Close()
	log := daemon.NewLogger(cfg.Log, lines)
	lines.OnDrop(func(n int) { log.Warn("lines of the log were dropped: nobody read them in time", "lines", n) })
	defer daemon.TakeOverStandardLog(log)()
	hangups := make(chan os.Signal, 1) // one that comes before Serve is not lost
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	d, err := daemon.New(p.ctx, cfg, daemon.Options{
		Version:        currentVersion(),
		Env:            p.environ(),
		Log:            log,
		ServiceManager: true,
	})
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(p.ctx)
	var reloads sync.WaitGroup
	reloads.Go(func() { c.reloadAt(serving, hangups, p, d) })
	err = d.Serve(p.ctx)
	stop()
	reloads.Wait()
	return errors.Join(err, d.Close())
}

// reloadAt has the daemon apply the configuration anew at each signal, until ctx ends.
func (c *serveCommand) reloadAt(ctx context.Context, signals <-chan os.Signal, p *invocation, d *daemon.Daemon) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			cfg, _, err := c.load(p)
			d.Reload(cfg, err)
		}
	}
}

// surviveClosedLog keeps the process running when the reader of its standard error has gone,
// until end is called: package os/signal says that SIGPIPE ends it otherwise. Programs that
// it starts get the default, which ignoring the signal would change for them too.
func surviveClosedLog() (end func()) {
	pipe := make(chan os.Signal, 1) // never read: the write fails as well
	signal.Notify(pipe, syscall.SIGPIPE)
	return func() { signal.Stop(pipe) }
}
