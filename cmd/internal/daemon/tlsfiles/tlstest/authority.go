// Package tlstest issues certificates for tests.
package tlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority issues certificates. It is immutable.
type Authority struct {
	// File is the PEM file of its own certificate.
	File string
	// Pool has that certificate.
	Pool *x509.CertPool

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Pair are the PEM files of a certificate and its key.
type Pair struct{ Cert, Key string }

// NewAuthority makes an authority whose file is in a folder of the test.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{File: filepath.Join(t.TempDir(), "ca.crt"), Pool: x509.NewCertPool(), key: newKey(t)}
	der := sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "Larder's tests"}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, a.key, a.key)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.Pool.AddCert(a.cert)
	write(t, a.File, "CERTIFICATE", der)
	return a
}

// Issue writes a certificate for hosts, of a client or of a server, that expires at a time. Its
// common name tells it from others. Files that the pair names are replaced; without names they
// are in a folder of the test.
func (a *Authority) Issue(t testing.TB, common string, expires time.Time, to Pair, hosts ...string) Pair {
	t.Helper()
	return a.issue(t, common, expires.Add(-48*time.Hour), expires, to, hosts...)
}

func (a *Authority) issue(t testing.TB, common string, begins, expires time.Time, to Pair, hosts ...string) Pair {
	t.Helper()
	if to == (Pair{}) {
		dir := t.TempDir()
		to = Pair{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: common}, NotBefore: begins, NotAfter: expires, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key := newKey(t)
	write(t, to.Cert, "CERTIFICATE", sign(t, template, a.cert, key, a.key))
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to.Key, "PRIVATE KEY", der)
	return to
}

// Server issues a certificate for the loopback address, good for an hour.
func (a *Authority) Server(t testing.TB, common string) Pair {
	t.Helper()
	return a.Issue(t, common, time.Now().Add(time.Hour), Pair{}, "127.0.0.1", "localhost")
}

// LongLived issues a server's certificate that is good for a month.
func (a *Authority) LongLived(t testing.TB, hosts ...string) Pair {
	t.Helper()
	return a.issue(t, "server", time.Now().Add(-time.Hour), time.Now().Add(30*24*time.Hour), Pair{}, hosts...)
}

// Load reads the pair.
func (p Pair) Load(t testing.TB) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign signs a certificate for key. Without a parent, the certificate is its own.
func sign(t testing.TB, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) []byte {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// write replaces a file in one step, as those do that rotate certificates.
func write(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
