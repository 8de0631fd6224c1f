package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strconv"
	"syscall"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/origin"
)

// listeners are where a daemon can be reached: by clients over TCP, for metrics and
// the status page (admin), and by commands over a Unix socket. admin and commands
// may be nil: images are served without commands.
type listeners struct {
	clients, admin, commands net.Listener
	names                    []string // by which clients may call them beside their addresses
	inherited                bool     // clients is the service manager's, which keeps it open
}

// hosts returns the Host headers that one of the listeners answers.
func (l listeners) hosts(of net.Listener) origin.Hosts { return origin.NewHosts(of.Addr(), l.names) }

// listen opens all listeners, or none; but if the socket for commands cannot be made,
// as on a full or read-only disk, the daemon does without. A socket that a service
// manager opened takes the place of what the configuration says.
func listen(ctx context.Context, cfg *config.Config, serviceManager bool, log *slog.Logger) (listeners, error) {
	var inherited map[string]net.Listener
	if serviceManager {
		var err error
		if inherited, err = inheritedListeners(); err != nil {
			return listeners{}, err
		}
	}
	socket := SocketPath(cfg.Cache.Dir)
	listenTCP := func(addr string) (net.Listener, error) { return new(net.ListenConfig).Listen(ctx, "tcp", addr) }
	listenSocket := func(path string) (net.Listener, error) {
		l, err := listenUnix(ctx, path)
		if err != nil {
			log.Warn("commands such as larder ls cannot reach this process: its socket cannot be made", "error", err)
			return nil, nil
		}
		return l, nil
	}
	l := listeners{names: cfg.Names, inherited: inherited["clients"] != nil}
	for _, want := range []struct {
		addr, purpose string
		flag          string // that sets the address
		listen        func(addr string) (net.Listener, error)
		to            *net.Listener
	}{
		{cfg.Listen, "clients", "--listen", listenTCP, &l.clients},
		{cfg.Admin, "admin", "--admin", listenTCP, &l.admin},
		{socket, "commands", "", listenSocket, &l.commands},
	} {
		opened := inherited[want.purpose]
		switch {
		case opened != nil:
			log.Info("listening where the service manager says", "for", want.purpose, "address", opened.Addr())
		case want.addr != "":
			var err error
			if opened, err = want.listen(want.addr); err != nil {
				return listeners{}, errors.Join(fmt.Errorf("listen for %s: %w%s", want.purpose, err, listenAdvice(err, want.flag)), l.close())
			}
		}
		*want.to = opened
	}
	at := l.clients.Addr()
	if isExposed(at) && cfg.Auth.On() && !cfg.TLS.On() { // the service manager's address, which the configuration does not know
		return listeners{}, errors.Join(fmt.Errorf("auth.htpasswd needs tls, since others could read passwords on the way to %s", at), l.close())
	}
	if isExposed(at) && cfg.TLS.ClientCA == "" && !cfg.Auth.On() {
		log.Warn("listening beyond loopback: anyone who reaches this address can pull every image that is cached or that its credentials may fetch",
			"listen", at)
	}
	l.warnOfAnyHost(log)
	return l, nil
}

// listenAdvice says what to do about an address that cannot be had.
func listenAdvice(err error, flag string) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf(": stop the process that has it, which \"ss -ltnp\" shows to root, or choose another address with %s", flag)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf(": only root may have ports below 1024; choose another with %s", flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf(": no interface of this machine has it; choose another with %s", flag)
	}
	return ""
}

// warnOfAnyHost logs, once for all listeners, that one of them answers every Host.
func (l listeners) warnOfAnyHost(log *slog.Logger) {
	for _, open := range []net.Listener{l.clients, l.admin} {
		if open != nil && isExposed(open.Addr()) && l.hosts(open).All() {
			log.Warn("requests are answered whatever their Host is, so that web pages can reach this address by DNS rebinding: "+
				"list in names by which names clients call it", "address", open.Addr())
			return
		}
	}
}

// statusPage is the URL of the status page, or "" if there is none.
func (l listeners) statusPage() string {
	if l.admin == nil {
		return ""
	}
	at, ok := l.admin.Addr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	host := at.IP.String()
	if at.IP.IsUnspecified() {
		host = "127.0.0.1" // on the node itself
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(at.Port)) + "/"
}

// close closes the listeners that are open.
func (l listeners) close() error {
	var errs []error
	for _, open := range []net.Listener{l.clients, l.admin, l.commands} {
		if open == nil {
			continue
		}
		if err := open.Close(); !errors.Is(err, net.ErrClosed) { // a server closes its own
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// isExposed reports whether an address can be reached from beyond this machine.
func isExposed(at net.Addr) bool {
	tcp, ok := at.(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}
