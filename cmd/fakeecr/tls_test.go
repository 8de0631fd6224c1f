package main

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestItSpeaksTLSWithACAInAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	r := start(t, "--tls-ca", file)
	ca, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("%s has no certificate", file)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	r.client.Transport = transport
	if !strings.HasPrefix(r.endpoint, "https://") {
		t.Errorf("the endpoint is %s", r.endpoint)
	}
	r.auth()
	if !strings.Contains(r.greeting, "SSL_CERT_FILE='"+file+"'") {
		t.Errorf("the greeting does not name the CA:\n%s", r.greeting)
	}
}
