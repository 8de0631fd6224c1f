package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/larder-registry/larder/cmd/larder/mirror"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/origin"
	"github.com/larder-registry/larder/upstream/name"
)

// mirrorCommand is "larder mirror".
type mirrorCommand struct {
	Config            string        `help:"Configuration file of the daemon ($$LARDER_CONFIG)." type:"path" placeholder:"FILE"`
	ContainerdDir     string        `help:"Folder of the hosts.toml files; containerd's config_path." default:"/etc/containerd/certs.d" type:"path" placeholder:"DIR"`
	URL               string        `name:"url" help:"URL at which this node reaches Larder. Default: from listen in the configuration." placeholder:"URL"`
	CA                string        `name:"ca" help:"PEM file of the authority of Larder's certificate, if this node does not trust that anyway." type:"path" placeholder:"FILE"`
	ClientCert        string        `help:"PEM file of this node's certificate, if Larder has tls.client_ca." type:"path" placeholder:"FILE"`
	ClientKey         string        `help:"PEM file of its key." type:"path" placeholder:"FILE"`
	Credentials       string        `help:"File with <user>:<password>, if Larder has auth.htpasswd. The hosts.toml files then can be read by root alone." type:"path" placeholder:"FILE"`
	Registry          []string      `help:"Registry to pull through Larder; may be given several times. Default: all configured hosts, and _default if a pattern is configured." placeholder:"HOST"`
	ContainerdVersion string        `help:"Version of the containerd that reads the files. Default: containerd is asked; if it does not answer, the files are for any version." placeholder:"VERSION"`
	ContainerdSocket  string        `help:"Socket at which containerd is asked." default:"/run/containerd/containerd.sock" type:"path" placeholder:"SOCKET"`
	ContainerdConfig  string        `help:"Containerd's own configuration, for --check." default:"/etc/containerd/config.toml" type:"path" placeholder:"FILE"`
	Only              bool          `help:"Never ask a registry itself: what Larder does not have is not pulled."`
	Remove            bool          `help:"Remove the mirror, and restore the files as they were." xor:"mode"`
	RemoveAtEnd       bool          `help:"Wait until stopped, then do as --remove; with --watch, repair the files meanwhile."`
	Report            bool          `help:"With --watch or --remove-at-end: do as --check again and again, and tell the daemon, for its metric, status page and alert."`
	Check             bool          `help:"Find out whether this node would pull through Larder; change nothing." xor:"mode"`
	Watch             bool          `help:"Write the files, and repair what others change until stopped." xor:"mode"`
	Every             time.Duration `help:"Time between two checks of --watch and --report." default:"10s" placeholder:"DURATION"`
	For               string        `help:"Print what to write into the configuration of another runtime: ${runtimes}." placeholder:"RUNTIME" xor:"mode"`
}

// errNotUsed is the result of a check that found something.
var errNotUsed = errors.New("this node does not pull all of its images through Larder")

// Help is what kong shows below the usage.
func (*mirrorCommand) Help() string {
	return "Examples:\n\n" +
		"    larder mirror --config /etc/larder/larder.yaml\n" +
		"    larder mirror --only\n" +
		"    larder mirror --check\n" +
		"    larder mirror --for podman --registry docker.io\n" +
		"    larder mirror --remove"
}

// Run does what the flags say; without a mode it writes the files.
func (c *mirrorCommand) Run(p *invocation) error {
	switch {
	case c.RemoveAtEnd && (c.Remove || c.Check || c.For != ""):
		return usageError{errors.New("--remove-at-end can be used by itself, or with --watch")}
	case c.Report && !c.RemoveAtEnd && !c.Watch:
		return usageError{errors.New("--report needs --watch or --remove-at-end; --check tells the daemon too, once")}
	case c.RemoveAtEnd && !c.Watch && !c.Report:
		<-p.ctx.Done()
		return c.remove(p)
	case c.Remove:
		return c.remove(p)
	}
	cfg, _, err := settings{Config: c.Config}.load(p)
	if err != nil {
		return err
	}
	m, err := c.mirror(p, cfg)
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
		return c.check(p, m, cfg)
	case c.Watch || c.Report:
		c.watch(p, m, cfg)
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
func (c *mirrorCommand) mirror(p *invocation, cfg *config.Config) (m mirror.Mirror, err error) {
	m = mirror.Mirror{URL: c.URL, Only: c.Only, TLS: mirror.TLS{CA: c.CA, ClientCert: c.ClientCert, ClientKey: c.ClientKey}}
	if c.Credentials != "" {
		if m.Authorization, err = mirror.ReadCredentials(c.Credentials); err != nil {
			return mirror.Mirror{}, err
		}
	}
	for _, registry := range c.Registry {
		host, ok := name.ParseRegistry(registry)
		if !ok {
			return mirror.Mirror{}, usageError{fmt.Errorf("--registry: expected a host such as docker.io or registry.example.com:5000, got %q", registry)}
		}
		if _, served := cfg.Match(host); !served {
			fmt.Fprintf(p.stderr, "larder: warning: this Larder refuses %s, so that its images are pulled past it: add it to upstreams in the configuration\n", host)
		}
		m.Registries = append(m.Registries, host)
	}
	if m.URL == "" {
		m.URL = nodeURL(cfg)
	} else if host := unknownName(m.URL, cfg); host != "" {
		fmt.Fprintf(p.stderr, "larder: warning: this Larder refuses requests that call it %s: add it to names in the configuration\n", host)
	}
	if err := m.TLS.Check(m.URL); err != nil {
		return mirror.Mirror{}, usageError{err}
	}
	c.warnOfMissing(p, cfg)
	if len(m.Registries) == 0 {
		for _, u := range cfg.Upstreams {
			if u.Host.HasStar() {
				m.Default = true
			} else {
				m.Registries = append(m.Registries, string(u.Host))
			}
		}
		m.Default = m.Default || c.Only && c.For == "" // the other registries are not asked either
	}
	if c.For == "" {
		m.Containerd, err = c.version(p)
	}
	return m, err
}

// unknownName returns the host of a URL by which a daemon with this configuration refuses to
// be called, or "".
func unknownName(at string, cfg *config.Config) string {
	u, err := url.Parse(at)
	if err != nil || net.ParseIP(u.Hostname()) != nil { // it answers by the address of the connection
		return ""
	}
	host, _, _ := net.SplitHostPort(cfg.Listen) // it is valid, as it comes from a configuration
	listen := net.ParseIP(host)
	if host == "localhost" {
		listen = net.IPv4(127, 0, 0, 1)
	}
	if origin.NewHosts(&net.TCPAddr{IP: listen}, cfg.Names).Check(&http.Request{Host: u.Host}) == nil {
		return ""
	}
	return u.Hostname()
}

// warnOfMissing tells of files that the configuration calls for, and that were not given.
func (c *mirrorCommand) warnOfMissing(p *invocation, cfg *config.Config) {
	if cfg.TLS.ClientCA != "" && c.ClientCert == "" {
		fmt.Fprintln(p.stderr, "larder: warning: this Larder refuses clients without a certificate: give one with --client-cert and --client-key")
	}
	if cfg.Auth.On() && c.Credentials == "" {
		fmt.Fprintln(p.stderr, "larder: warning: this Larder refuses clients without a password: give a file with --credentials")
	}
}

// nodeURL returns the URL at which Larder is reached from its own machine.
func nodeURL(cfg *config.Config) string {
	host, port, _ := net.SplitHostPort(cfg.Listen) // it is valid, as it comes from a configuration
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	if cfg.TLS.On() {
		return "https://" + net.JoinHostPort(host, port)
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
	if err != nil && (c.Watch || !c.Report) { // --report alone writes no files
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

// check prints what it finds, and tells the daemon if one runs and lets this user.
func (c *mirrorCommand) check(p *invocation, m mirror.Mirror, cfg *config.Config) error {
	findings, err := c.examine(p.ctx, m)
	if err != nil {
		fmt.Fprintf(p.stderr, "larder: containerd's proxy variables are not checked: %v\n", err)
	}
	_ = tell(p.ctx, cfg, findings) // the findings are printed anyway
	warnOfEvasion(p, cfg, c.ContainerdDir, c.ContainerdConfig)
	bad := false
	for _, f := range findings {
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

// examine finds out whether the node pulls through the mirror. The error says why containerd's
// proxy variables are not among what was examined.
func (c *mirrorCommand) examine(ctx context.Context, m mirror.Mirror) ([]mirror.Finding, error) {
	node := mirror.Node{Hosts: c.ContainerdDir, Config: c.ContainerdConfig, SOCI: mirror.DefaultSOCI}
	var err error
	node.Environ, err = mirror.Environ(ctx, c.ContainerdSocket)
	return mirror.Check(ctx, m, node), err
}

// watch does what --watch and --report say, again and again until it is stopped. A failure
// is printed once, and tried again.
func (c *mirrorCommand) watch(p *invocation, m mirror.Mirror, cfg *config.Config) {
	var last string // error that was printed
	for {
		var err error
		if c.Watch {
			err = c.repair(p, m)
		}
		if c.Report {
			findings, _ := c.examine(p.ctx, m) // the pod of the chart cannot see containerd's environment
			err = errors.Join(err, tell(p.ctx, cfg, findings))
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

// repair writes the files that differ.
func (c *mirrorCommand) repair(p *invocation, m mirror.Mirror) error {
	changes, err := mirror.Install(m, c.ContainerdDir)
	for _, change := range changes {
		if change.Did != mirror.Unchanged {
			fmt.Fprintln(p.stdout, change.Did, change.Path)
		}
	}
	return err
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
