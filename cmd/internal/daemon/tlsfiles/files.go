package tlsfiles

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/larder-registry/larder/proxy/livefile"
)

// Files are the paths of PEM files.
type Files struct {
	// Cert has the certificate, with those between it and its authority, and Key its
	// private key.
	Cert, Key string
	// ClientCA has the authorities of clients. If it is "", clients need no certificate.
	ClientCA string
}

// Check reports whether a server can use the files. The error names the one that it cannot use.
func (f Files) Check() (Certificate, error) {
	c, err := f.read()
	if err != nil {
		return Certificate{}, err
	}
	config, err := f.parse(c)
	if err != nil {
		return Certificate{}, err
	}
	return Certificate{config.Certificates[0].Leaf}, nil
}

// contents is what the files had when they were read.
type contents struct{ cert, key, clientCA []byte }

// maxFile bounds each file, in bytes. All authorities that browsers trust have some 200 kB.
const maxFile = 1 << 20

func (f Files) read() (c contents, err error) {
	for _, file := range []struct {
		path string
		to   *[]byte
	}{{f.Cert, &c.cert}, {f.Key, &c.key}, {f.ClientCA, &c.clientCA}} {
		if file.path == "" {
			continue
		}
		if *file.to, err = livefile.Read(file.path, maxFile); err != nil {
			return contents{}, fmt.Errorf("read a file of tls: %w", err)
		}
	}
	return c, nil
}

// sum tells contents from others.
func (c contents) sum() [sha256.Size]byte {
	h := sha256.New()
	for _, part := range [][]byte{c.cert, c.key, c.clientCA} {
		fmt.Fprintf(h, "%d\n", len(part)) // a hash returns no error
		h.Write(part)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// parse returns the settings of a server. HTTP/1.1 is the only protocol: the limits of
// connections are for one request at a time on each. Sessions are not resumed, so that each
// connection sees the certificate, and is held to the authorities, of its own time.
func (f Files) parse(c contents) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("use the certificate in %s with the key in %s: %w", f.Cert, f.Key, err)
	}
	config := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{"http/1.1"},
		Certificates:           []tls.Certificate{pair},
		SessionTicketsDisabled: true,
	}
	if f.ClientCA != "" {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(c.clientCA) {
			return nil, fmt.Errorf("use the authorities in %s: %w", f.ClientCA, errNoCertificate)
		}
	}
	return config, nil
}

var errNoCertificate = errors.New("the file has no certificate in PEM form")
