package ecrtest_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestServerSpeaksTLSWithItsOwnCA(t *testing.T) {
	server, err := ecrtest.Start(ecrtest.Options{TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(server.CA()) {
		t.Fatal("the CA is no certificate")
	}
	for _, url := range []string{server.Endpoint, server.StorageURL} {
		if !strings.HasPrefix(url, "https://") {
			t.Errorf("the URL is %s", url)
		}
	}
	// Each connection ends after one request, so that the second one resumes the session of the first.
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: pool, ClientSessionCache: tls.NewLRUClientSessionCache(8)},
	}
	defer transport.CloseIdleConnections()
	ask := func(url string) {
		t.Helper()
		resp, err := (&http.Client{Transport: transport}).Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		ask(server.Endpoint + "/v2/")
	}
	if full, resumed := server.Handshakes(); full != 1 || resumed != 1 {
		t.Errorf("%d handshakes were full and %d resumed a session, want 1 and 1", full, resumed)
	}
	ask(server.StorageURL + "/")
	if full, _ := server.Handshakes(); full != 2 {
		t.Errorf("%d full handshakes with the registry and storage, want 2", full)
	}
	stranger := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if resp, err := stranger.Get(server.Endpoint + "/v2/"); err == nil {
		resp.Body.Close()
		t.Error("a client that does not know the CA trusts the server")
	}
}
