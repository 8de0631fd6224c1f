package tlsfiles

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Certificate is that of a server.
type Certificate struct{ leaf *x509.Certificate }

// Names are the host names and addresses that the certificate is for, as one text.
func (c Certificate) Names() string { return NamesOf(c.leaf) }

// NamesOf is Names for any certificate.
func NamesOf(cert *x509.Certificate) string {
	all := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no name"
	}
	return strings.Join(all, ", ")
}

// IsFor reports whether clients accept the certificate for a host name or an address.
func (c Certificate) IsFor(host string) bool { return c.leaf.VerifyHostname(host) == nil }

// HasBegun reports whether the certificate is valid at a time, or was before.
func (c Certificate) HasBegun(now time.Time) bool { return !now.Before(c.leaf.NotBefore) }

// Expires returns when the certificate stops being valid.
func (c Certificate) Expires() time.Time { return c.leaf.NotAfter }

// soon is how long before its end a certificate should have been replaced: certificates that
// live for 90 days are renewed 30 days before.
const soon = 7 * 24 * time.Hour

// Problem says why clients refuse the certificate at a time, or will within a week; "" if
// neither is so.
func (c Certificate) Problem(now time.Time) string {
	switch {
	case now.Before(c.leaf.NotBefore):
		return fmt.Sprintf("the certificate is valid from %s on", c.leaf.NotBefore.UTC().Format(time.RFC3339))
	case now.After(c.leaf.NotAfter):
		return fmt.Sprintf("the certificate has expired at %s", c.leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Add(soon).After(c.leaf.NotAfter):
		return fmt.Sprintf("the certificate expires at %s", c.leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return ""
}
