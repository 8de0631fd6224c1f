package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/password"
)

// checkClients examines the files with which clients are served. Without any there is no such step.
func checkClients(e *examination, cfg *config.Config) {
	if cfg.TLS.On() {
		e.step("tls", nil, func(context.Context) finding { return tlsFilesFinding(cfg) })
	}
	if cfg.Auth.On() {
		e.step("users", nil, func(context.Context) finding {
			n, err := password.Count(cfg.Auth.Htpasswd)
			if err != nil {
				return badFile(err, "Fix the line with htpasswd -B, or name another file in auth.htpasswd.")
			}
			return passed("%s has %d users", cfg.Auth.Htpasswd, n)
		})
	}
	if cfg.HasAccessByClient() {
		e.step("access", nil, func(context.Context) finding { return accessFinding(cfg) })
	}
}

// ecrTokenLife is the life of ECR's tokens (API reference, GetAuthorizationToken).
const ecrTokenLife = 12 * time.Hour

// accessFinding says for how long clients are served by their own rights while no upstream can be asked.
func accessFinding(cfg *config.Config) finding {
	var hosts []string
	for _, u := range cfg.Upstreams {
		if _, isECR := u.Host.ECR(); isECR && u.ByClient() {
			hosts = append(hosts, string(u.Host))
		}
	}
	offline := cfg.Access.Offline
	if len(hosts) == 0 || offline <= ecrTokenLife {
		return passed("while a registry cannot be asked, a client is served for %v, but not after its credential was replaced", offline)
	}
	return warning(fmt.Sprintf("while ECR cannot be asked, clients of %s are served for %v at most, and not for the %v of access.offline: their tokens live that long, and new ones are not known",
		strings.Join(hosts, ", "), ecrTokenLife, offline),
		"For a site that must run longer without ECR, set access: node at that upstream.")
}

// badFile is the finding of a file that larder serve cannot use, or that this user may not read.
func badFile(err error, advice string) finding {
	if errors.Is(err, fs.ErrPermission) {
		return finding{Skipped, err.Error(), "To examine it, run doctor as root or as the user that larder runs as."}
	}
	return failed(err, advice)
}

func tlsFilesFinding(cfg *config.Config) finding {
	cert, err := tlsfiles.Files{Cert: cfg.TLS.Cert, Key: cfg.TLS.Key, ClientCA: cfg.TLS.ClientCA}.Check()
	if err != nil {
		return badFile(err, "Replace the files of tls: the key must be that of the certificate, both in PEM form.")
	}
	now := time.Now()
	var missing []string
	for _, host := range calledBy(cfg) {
		if !cert.IsFor(host) {
			missing = append(missing, host)
		}
	}
	switch problem := cert.Problem(now); {
	case problem != "" && now.Before(cert.Expires()) && cert.HasBegun(now):
		return warning(problem, "Replace the files of tls; no restart is needed.")
	case problem != "":
		return failed(errors.New(problem), "Replace the files of tls, or set the clock of this machine. Until then runtimes go to the registries.")
	case len(missing) > 0:
		return warning("the certificate is for "+cert.Names()+", and not for "+strings.Join(missing, ", "),
			"Clients that call Larder so refuse it: make a certificate that has these as Subject Alternative Names.")
	}
	return passed("the certificate is for %s, until %s", cert.Names(), cert.Expires().UTC().Format(time.DateOnly))
}

// calledBy returns the names and addresses by which the configuration says that clients call Larder.
func calledBy(cfg *config.Config) []string {
	host, _, _ := net.SplitHostPort(cfg.Listen) // it is valid, as it comes from a configuration
	addr, err := netip.ParseAddr(host)
	if host == "" || err == nil && addr.IsUnspecified() {
		return cfg.Names
	}
	return append([]string{host}, cfg.Names...)
}
