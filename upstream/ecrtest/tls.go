package ecrtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"sync/atomic"
	"time"
)

// certificateLife is how long the certificates of a server are good for.
const certificateLife = 30 * 24 * time.Hour

// secure is the TLS of a running server. It is safe for concurrent use.
type secure struct {
	ca     []byte // PEM
	config *tls.Config

	full, resumed atomic.Int64 // handshakes
}

// newSecure makes a CA, and a certificate of it for hosts. The key of the CA is forgotten.
func newSecure(hosts ...string) (*secure, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a CA: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "the fake ECR's CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certificateLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano() + 1), Subject: pkix.Name{CommonName: "the fake ECR"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, host)
		}
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("signing a CA: %w", err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	s := &secure{ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})}
	s.config = &tls.Config{
		MinVersion:       tls.VersionTLS12,
		Certificates:     []tls.Certificate{{Certificate: [][]byte{leafDER}, PrivateKey: key}},
		VerifyConnection: s.count,
	}
	return s, nil
}

// count counts a handshake.
func (s *secure) count(state tls.ConnectionState) error {
	if state.DidResume {
		s.resumed.Add(1)
	} else {
		s.full.Add(1)
	}
	return nil
}

// listener returns l, over TLS if there is any.
func (s *secure) listener(l net.Listener) net.Listener {
	if s == nil {
		return l
	}
	return tls.NewListener(l, s.config)
}

func (s *secure) scheme() string {
	if s == nil {
		return "http://"
	}
	return "https://"
}

// CA returns the certificate in PEM of the CA that clients have to trust, or nil if the server
// does not speak TLS. See [Options.TLS].
func (r *Running) CA() []byte {
	if r.secure == nil {
		return nil
	}
	return r.secure.ca
}

// Handshakes returns how many TLS handshakes the server has made, of the registry and of storage
// together: full ones, and those that resumed a session.
func (r *Running) Handshakes() (full, resumed int) {
	if r.secure == nil {
		return 0, 0
	}
	return int(r.secure.full.Load()), int(r.secure.resumed.Load())
}
