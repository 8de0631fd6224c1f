package signed_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// authority issues certificates for signing, as notation wants them.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// century is longer than the fixtures are used.
const century = 100 * 365 * 24 * time.Hour

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{name}, Country: []string{"US"}, Province: []string{"WA"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(century), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	return &authority{certify(t, template, template, key.Public(), key), key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certify(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// issue writes the key and the certificate of a signer to a folder.
func (a *authority) issue(t *testing.T, folder, organization string, serial int64, until time.Time, ocspServer string) {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: organization, Organization: []string{organization}, Country: []string{"US"}, Province: []string{"WA"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if ocspServer != "" {
		template.OCSPServer = []string{ocspServer}
	}
	leaf := certify(t, template, a.cert, key.Public(), a.key)
	writePrivate(t, filepath.Join(folder, "key.pem"), key)
	writeCertificates(t, filepath.Join(folder, "cert.pem"), leaf, a.cert)
}

func writePrivate(t *testing.T, path string, key *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func writeCertificates(t *testing.T, path string, certs ...*x509.Certificate) {
	t.Helper()
	var out bytes.Buffer
	for _, cert := range certs {
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, path, out.Bytes())
}

func writeFile(t *testing.T, path string, raw []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// readAuthority reads an authority that write wrote.
func readAuthority(t *testing.T, folder string) *authority {
	t.Helper()
	block := func(name string) []byte {
		raw, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		decoded, _ := pem.Decode(raw)
		return decoded.Bytes
	}
	cert, err := x509.ParseCertificate(block("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(block("ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key.(*ecdsa.PrivateKey)}
}

func (a *authority) write(t *testing.T, folder string) {
	t.Helper()
	writeCertificates(t, filepath.Join(folder, "ca.crt"), a.cert)
	writePrivate(t, filepath.Join(folder, "ca.key"), a.key)
}

// The serial numbers of certificates decide what the responder says.
const (
	serialGood = iota + 10
	serialRevoked
	serialSilent
)

// responder is the OCSP service of an authority. It is an HTTP transport, and a server that can be used as a proxy.
type responder struct {
	by *authority

	mu    sync.Mutex // guards what follows
	asked int
}

var errSilent = errors.New("the OCSP service does not answer")

// RoundTrip is for http.RoundTripper.
func (r *responder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	r.asked++
	r.mu.Unlock()
	if req.URL.Host != "ocsp.example" {
		return nil, errSilent
	}
	answer, err := r.answer(req)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: req, ContentLength: int64(len(answer)),
		Header: http.Header{"Content-Type": {"application/ocsp-response"}}, Body: io.NopCloser(bytes.NewReader(answer)),
	}, nil
}

// ServeHTTP is for http.Handler.
func (r *responder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	answer, err := r.answer(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	_, _ = w.Write(answer)
}

func (r *responder) answer(req *http.Request) ([]byte, error) {
	var raw []byte
	var err error
	if req.Method == http.MethodGet {
		raw, err = base64.StdEncoding.DecodeString(strings.TrimLeft(req.URL.Path, "/"))
	} else {
		raw, err = io.ReadAll(req.Body)
	}
	if err != nil {
		return nil, err
	}
	question, err := ocsp.ParseRequest(raw)
	if err != nil {
		return nil, err
	}
	template := ocsp.Response{
		SerialNumber: question.SerialNumber, Status: ocsp.Good, ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
	}
	switch question.SerialNumber.Int64() {
	case serialRevoked:
		template.Status, template.RevokedAt, template.RevocationReason = ocsp.Revoked, time.Now().Add(-24*time.Hour), ocsp.KeyCompromise
	case serialSilent:
		return nil, errSilent
	}
	return ocsp.CreateResponse(r.by.cert, r.by.cert, template, r.by.key)
}
