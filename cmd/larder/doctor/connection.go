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
	if c.Stage == probe.StageAnswer {
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
			e.add(step, finding{severity, c.Err.Error(), adviceOnConnection(c)}, took)
			if severity == Failed {
				e.causes[name] = step
			}
		default:
			e.add(step, s.seen, c.Took[s.stage])
		}
	}
	return c
}

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
	}
	return passed("%s", strings.Join(c.Addresses, ", "))
}

func tlsFinding(c probe.Connection) finding {
	if c.TLS == "" {
		return skipped("plain HTTP, by the configuration")
	}
	return passed("%s, with a certificate that is trusted here", c.TLS)
}

// adviceOnConnection says what to do when a connection fails.
func adviceOnConnection(c probe.Connection) string {
	if c.Proxy != "" {
		return "This goes through the proxy " + c.Proxy + ": check that it is up and lets this host through, or add the host to NO_PROXY."
	}
	if advice, ok := adviceOnCertificate(c.Err); ok {
		return advice
	}
	var dns *net.DNSError
	switch {
	case errors.As(c.Err, &dns) && dns.IsNotFound:
		return "No such name here: check its spelling and the region in it. In a VPC with an endpoint for it, turn on the endpoint's private DNS."
	case c.Stage == probe.StageDNS:
		return "The DNS server does not answer: check /etc/resolv.conf, and in a VPC that DNS resolution is on."
	case errors.Is(c.Err, syscall.ECONNREFUSED):
		return "Nothing listens there: check the endpoint in the configuration, and to what its name resolves."
	case c.Stage == probe.StageTCP:
		return "Packets get lost on the way: check routes, security groups and network policies. A subnet without a route to the internet needs VPC endpoints: ecr.dkr, ecr.api and sts, and the gateway endpoint of S3 for layers."
	case c.Stage == probe.StageTLS:
		return "The server does not speak proper TLS: look for a proxy or firewall on the way, and check whether the endpoint should be http."
	}
	return "The server accepts connections and does not answer: check the registry, and proxies and firewalls on the way."
}

func adviceOnCertificate(err error) (string, bool) {
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown):
		return "Its certificate is signed by an authority that is not trusted here, such as that of a proxy that inspects TLS: add the authority's certificate to the system's, or name it in SSL_CERT_FILE (for AWS's APIs AWS_CA_BUNDLE).", true
	case errors.As(err, &hostname):
		return "Its certificate is for another name: check the endpoint in the configuration, and to what its name resolves.", true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "Its certificate is not valid now: check the clock of this machine first, then have the registry's certificate renewed.", true
	case errors.As(err, &verification):
		return "Its certificate cannot be verified: the error says why.", true
	}
	return "", false
}
