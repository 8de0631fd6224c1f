package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/larder-registry/larder/cmd/larder/mirror"
)

// mirrorCommand is "larder mirror".
type mirrorCommand struct {
	Config            string        `help:"Configuration file of the daemon ($$LARDER_CONFIG)." type:"path" placeholder:"FILE"`
	ContainerdDir     string        `help:"Folder of the hosts.toml files; containerd's config_path." default:"/etc/containerd/certs.d" type:"path" placeholder:"DIR"`
	URL               string        `name:"url" help:"URL at which this node reaches Larder. Default: from listen in the configuration." placeholder:"URL"`
	Registry          []string      `help:"Registry to pull through Larder; may be given several times. Default: all configured hosts, and _default if a pattern is configured." placeholder:"HOST"`
	ContainerdVersion string        `help:"Version of the containerd that reads the files. Default: containerd is asked; if it does not answer, the files are for any version." placeholder:"VERSION"`
	ContainerdSocket  string        `help:"Socket at which containerd is asked." default:"/run/containerd/containerd.sock" type:"path" placeholder:"SOCKET"`
	ContainerdConfig  string        `help:"Containerd's own configuration, for --check." default:"/etc/containerd/config.toml" type:"path" placeholder:"FILE"`
	Remove            bool          `help:"Remove the mirror, and restore the files as they were." xor:"mode"`
	RemoveAtEnd       bool          `help:"Wait until stopped, then do as --remove; with --watch, repair the files meanwhile."`
	Check             bool          `help:"Find out whether this node would pull through Larder; change nothing." xor:"mode"`
	Watch             bool          `help:"Write the files, and repair what others change until stopped." xor:"mode"`
	Every             time.Duration `help:"Time between two checks of --watch." default:"10s" placeholder:"DURATION"`
	For               string        `help:"Print what to write into the configuration of another runtime: ${runtimes}." placeholder:"RUNTIME" xor:"mode"`
}

// errNotUsed is the result of a check that found something.
var errNotUsed = errors.New("this node does not pull all of its images through Larder")

// Run does what the flags say; without a mode it writes the files.
func (c *mirrorCommand) Run(p *invocation) error {
	switch {
	case c.RemoveAtEnd && (c.Remove || c.Check || c.For != ""):
		return usageError{errors.New("--remove-at-end can be used by itself, or with --watch")}
	case c.RemoveAtEnd && !c.Watch:
		<-p.ctx.Done()
		return c.remove(p)
	case c.Remove:
		return c.remove(p)
	}
	m, err := c.mirror(p)
	switch {
	case err != nil:
		return err
	case c.For != "":
		text, err := mirror.Snippet(m, c.For, c.ContainerdDir)
		if err != nil {
			return usageError{err}
		}
		_, err = io.WriteString(p.stdout, text)
		return err
	case c.Check:
		return c.check(p, m)
	case c.Watch:
		c.watch(p, m)
		if c.RemoveAtEnd {
			return c.remove(p)
		}
		return nil
	}
	return c.report(p.stdout)(mirror.Install(m, c.ContainerdDir))
}

func (c *mirrorCommand) remove(p *invocation) error {
	return c.report(p.stdout)(mirror.Remove(c.ContainerdDir))
}

// mirror returns the mirror of the flags and the configuration.
func (c *mirrorCommand) mirror(p *invocation) (mirror.Mirror, error) {
	cfg, err := settings{Config: c.Config}.load(p.env)
	if err != nil {
		return mirror.Mirror{}, err
	}
	m := mirror.Mirror{URL: c.URL, Registries: c.Registry}
	if m.URL == "" {
		m.URL = nodeURL(cfg.Listen)
	}
	if len(m.Registries) == 0 {
		for _, u := range cfg.Upstreams {
			if u.Host.HasStar() {
				m.Default = true
			} else {
				m.Registries = append(m.Registries, string(u.Host))
			}
		}
	}
	if c.For == "" {
		m.Containerd, err = c.version(p)
	}
	return m, err
}

// nodeURL returns the URL at which Larder is reached from its own machine.
func nodeURL(listen string) string {
	host, port, _ := net.SplitHostPort(listen) // it is valid, as it comes from a configuration
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// version returns the version of the containerd that reads the files. One that does
// not answer may be starting: the files are for any version then.
func (c *mirrorCommand) version(p *invocation) (mirror.Version, error) {
	if c.ContainerdVersion != "" {
		v, err := mirror.ParseVersion(c.ContainerdVersion)
		if err != nil {
			return v, usageError{err}
		}
		return v, nil
	}
	v, err := mirror.AskVersion(p.ctx, c.ContainerdSocket)
	if err != nil {
		fmt.Fprintf(p.stderr, "larder: %v; hosts.toml files are for any version, without dial_timeout: "+
			"give --containerd-version to have it with 2.1 and later\n", err)
	}
	return v, nil
}

// report prints what was done with the files.
func (c *mirrorCommand) report(w io.Writer) func([]mirror.Change, error) error {
	return func(changes []mirror.Change, err error) error {
		for _, change := range changes {
			fmt.Fprintln(w, change.Did, change.Path)
		}
		if len(changes) == 0 && err == nil {
			fmt.Fprintln(w, "nothing to do in", c.ContainerdDir)
		}
		return err
	}
}

func (c *mirrorCommand) check(p *invocation, m mirror.Mirror) error {
	node := mirror.Node{Hosts: c.ContainerdDir, Config: c.ContainerdConfig}
	environ, err := mirror.Environ(p.ctx, c.ContainerdSocket)
	if err != nil {
		fmt.Fprintf(p.stderr, "larder: containerd's proxy variables are not checked: %v\n", err)
	}
	node.Environ = environ
	bad := false
	for _, f := range mirror.Check(p.ctx, m, node) {
		mark := "✓"
		if !f.OK {
			mark, bad = "✗", true
		}
		fmt.Fprintln(p.stdout, mark, f.What)
		if f.Advice != "" {
			fmt.Fprintln(p.stdout, "  "+strings.ReplaceAll(f.Advice, "\n", "\n  "))
		}
	}
	if bad {
		return errNotUsed
	}
	return nil
}

// watch writes the files again whenever they differ, until it is stopped. A failure
// is printed once, and tried again.
func (c *mirrorCommand) watch(p *invocation, m mirror.Mirror) {
	var last string // error that was printed
	for {
		changes, err := mirror.Install(m, c.ContainerdDir)
		for _, change := range changes {
			if change.Did != mirror.Unchanged {
				fmt.Fprintln(p.stdout, change.Did, change.Path)
			}
		}
		switch text := fmt.Sprint(err); {
		case err == nil:
			last = ""
		case text != last:
			fmt.Fprintln(p.stderr, "larder:", err)
			last = text
		}
		select {
		case <-time.After(c.Every):
		case <-p.ctx.Done():
			return
		}
		c.followVersion(p.ctx, &m)
	}
}

// followVersion notices when containerd is replaced by another version.
func (c *mirrorCommand) followVersion(ctx context.Context, m *mirror.Mirror) {
	if c.ContainerdVersion != "" {
		return
	}
	if v, err := mirror.AskVersion(ctx, c.ContainerdSocket); err == nil {
		m.Containerd = v
	}
}
