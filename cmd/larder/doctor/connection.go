package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/larder-registry/larder/upstream/guard"
	"github.com/larder-registry/larder/upstream/probe"
)

// connect makes a connection, which is three steps: DNS, TCP and TLS. If one fails
// it has the given severity.
func connect(e *examination, name string, severity Status, dial func(context.Context) probe.Connection) probe.Connection {
	ctx, cancel := context.WithTimeoutCause(e.ctx, e.timeout, errStepTimeout)
	defer cancel()
	began := time.Now()
	c := dial(ctx)
	took := time.Since(began)
	advice := adviceOnConnection(name, c)
	switch {
	case c.WantsTLS:
		c.Stage, c.Err = probe.StageTLS, errWantsTLS
	case c.Stage == probe.StageAnswer:
		c.Stage, c.Err = probe.StageTLS, fmt.Errorf("connected, but there is no answer: %w", c.Err)
	}
	var cause string
	for _, s := range []struct {
		stage probe.Stage
		seen  finding
	}{
		{probe.StageDNS, dnsFinding(c)},
		{probe.StageTCP, passed("connected to %s", c.Remote)},
		{probe.StageTLS, tlsFinding(c)},
	} {
		step := name + "-" + string(s.stage)
		switch {
		case cause != "":
			e.add(step, skippedAfter(cause), 0)
		case c.Stage == s.stage:
			cause = step
			e.add(step, finding{severity, c.Err.Error(), advice}, took)
			if severity == Failed {
				e.causes[name] = step
			}
		default:
			e.add(step, s.seen, c.Took[s.stage])
		}
	}
	return c
}

// errWantsTLS is the error of an answer to plain HTTP which says that it should be TLS.
var errWantsTLS = errors.New("the server expects TLS, and was asked by plain HTTP")

// skipConnection adds the three steps of a connection that is not made.
func skipConnection(e *examination, name string, f finding) {
	for _, stage := range []probe.Stage{probe.StageDNS, probe.StageTCP, probe.StageTLS} {
		e.add(name+"-"+string(stage), f, 0)
	}
}

func dnsFinding(c probe.Connection) finding {
	switch {
	case c.Proxy != "" && len(c.Addresses) > 0:
		return passed("through the proxy %s, which is %s", c.Proxy, strings.Join(c.Addresses, ", "))
	case c.Proxy != "":
		return skipped("through the proxy " + c.Proxy)
	case len(c.Addresses) == 0:
		return skipped("an address needs no DNS")
	case len(c.Mute) > 0:
		return warning(fmt.Sprintf("%s; no answer from the name server %s", strings.Join(c.Addresses, ", "), strings.Join(c.Mute, ", ")), adviceOnMute)
	}
	return passed("%s", strings.Join(c.Addresses, ", "))
}

func tlsFinding(c probe.Connection) finding {
	if c.TLS == "" {
		return skipped("plain HTTP, by the configuration")
	}
	return passed("%s, with a certificate that is trusted here", c.TLS)
}

// adviceOnMute is for a name server that does not answer while another one does.
const adviceOnMute = "Larder asks the other name server, and most programs wait 5 seconds for the first one each time: have it answer, or remove it from /etc/resolv.conf."

// adviceOnConnection says what to do when the connection of this name fails.
func adviceOnConnection(name string, c probe.Connection) string {
	if c.Proxy != "" {
		return "This goes through the proxy " + c.Proxy + ": check that it is up and lets this host through, or add the host to NO_PROXY."
	}
	if advice, ok := adviceOnCertificate(name, c.Err); ok {
		return advice
	}
	var dns *net.DNSError
	var refused *guard.RefusedError
	var notTLS tls.RecordHeaderError
	switch {
	case errors.As(c.Err, &refused):
		return "Its name leads to a loopback, link-local or metadata address, to which an upstream may not lead: correct what the name resolves to here (DNS, /etc/hosts). If Larder is to use that address, name it in endpoint of this upstream."
	case c.WantsTLS, c.Stage == probe.StageAnswer && c.TLS == "" && has(c.Err, "malformed HTTP"):
		return "The server speaks TLS there: let the endpoint begin with https://."
	case errors.As(c.Err, &notTLS), has(c.Err, "server gave HTTP response to HTTPS client"):
		return "The server speaks plain HTTP there: let the endpoint begin with http://, or name the port where it speaks TLS. If that is right already, look for a proxy or firewall on the way."
	case errors.As(c.Err, &dns) && dns.IsNotFound:
		return "No such name here: check its spelling and the region in it. In a VPC with an endpoint for it, turn on the endpoint's private DNS."
	case c.Stage == probe.StageDNS && len(c.Mute) > 0:
		return "There is no answer from the name server " + strings.Join(c.Mute, ", ") + ": check /etc/resolv.conf, and in a VPC that DNS resolution is on."
	case c.Stage == probe.StageDNS:
		return "The DNS server does not answer: check /etc/resolv.conf, and in a VPC that DNS resolution is on."
	case errors.Is(c.Err, syscall.ECONNREFUSED) && name == storage:
		return "Nothing listens there: the registry sends Larder to this host for layers. Check to what its name resolves here, and whether the registry names a host that only it can reach."
	case errors.Is(c.Err, syscall.ECONNREFUSED):
		return "Nothing listens there: check the endpoint in the configuration, and to what its name resolves."
	case c.Stage == probe.StageTCP && name == storage:
		return "Packets get lost on the way to the host of layers: check routes, security groups and network policies for it too. A subnet without a route to the internet needs the gateway endpoint of S3."
	case c.Stage == probe.StageTCP:
		return "Packets get lost on the way: check routes, security groups and network policies. A subnet without a route to the internet needs VPC endpoints: ecr.dkr, ecr.api and sts, and the gateway endpoint of S3 for layers."
	case c.Stage == probe.StageTLS:
		return "The server does not speak proper TLS: look for a proxy or firewall on the way."
	}
	return "The server accepts connections and does not answer: check the registry, and proxies and firewalls on the way."
}

// storage is the name of connections to where a registry sends clients for layers. No
// key of the configuration names that host.
const storage = "storage"

func adviceOnCertificate(name string, err error) (string, bool) {
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown):
		return "Its certificate is signed by an authority that is not trusted here, such as that of a proxy that inspects TLS: add the authority's certificate to the system's, or name it in SSL_CERT_FILE (for AWS's APIs AWS_CA_BUNDLE).", true
	case errors.As(err, &hostname) && name == storage:
		return "Its certificate is for another name: check to what the name resolves here, and look for a proxy on the way.", true
	case errors.As(err, &hostname):
		return "Its certificate is for another name: check the endpoint in the configuration, and to what its name resolves.", true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "Its certificate is not valid now: check the clock of this machine first, then have the registry's certificate renewed.", true
	case errors.As(err, &verification):
		return "Its certificate cannot be verified: the error says why.", true
	}
	return "", false
}
