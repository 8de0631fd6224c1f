package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cmd/internal/daemon/conns"
	"github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles"
	"github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles/tlstest"
	"github.com/larder-registry/larder/config"
)

// secured is a daemon in this process that serves over HTTPS.
type secured struct {
	*inside
	ca   *tlstest.Authority // of the server, and of clients
	pair tlstest.Pair       // of the server
	stop func()
}

// serveSecured is serveInside over HTTPS. more is the end of the configuration file.
func serveSecured(t *testing.T, clientCA bool, more string) *secured {
	t.Helper()
	s := &secured{ca: tlstest.NewAuthority(t)}
	s.pair = s.ca.Server(t, "first")
	s.inside, s.stop = serveInside(t, s.section(clientCA)+more)
	return s
}

// section is the section tls of the configuration.
func (s *secured) section(clientCA bool) string {
	if clientCA {
		return fmt.Sprintf("tls: {cert: %q, key: %q, client_ca: %q}\n", s.pair.Cert, s.pair.Key, s.ca.File)
	}
	return fmt.Sprintf("tls: {cert: %q, key: %q}\n", s.pair.Cert, s.pair.Key)
}

// connecting returns a client that trusts the server, and connects anew for each request. It has
// certificates if there are some.
func (s *secured) connecting(certs ...tls.Certificate) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{RootCAs: s.ca.Pool, Certificates: certs, ClientSessionCache: tls.NewLRUClientSessionCache(8)},
	}}
}

// fetch returns the response to a GET by a client; headers come in pairs. The test closes it.
func (s *secured) fetch(t *testing.T, client *http.Client, path string, header ...string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.listen+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return client.Do(req)
}

// seen returns the name of the certificate that new connections see.
func (s *secured) seen(t *testing.T, client *http.Client) string {
	t.Helper()
	resp, err := s.fetch(t, client, "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.TLS.PeerCertificates[0].Subject.CommonName
}

// replace has the daemon use another certificate, as an operator does, and waits for it.
func (s *secured) replace(t *testing.T, client *http.Client, common string) {
	t.Helper()
	s.ca.Issue(t, common, time.Now().Add(time.Hour), s.pair, "127.0.0.1")
	cfg := *s.daemon.cfg
	s.daemon.Reload(&cfg, nil)
	tick := time.Tick(pollInterval) // the files are read in the background
	for range 500 {
		if s.seen(t, client) == common {
			return
		}
		<-tick
	}
	t.Fatalf("new connections do not see the new certificate:\n%s", s.log)
}

func TestCertificateIsReplacedUnderPullingClients(t *testing.T) {
	const clients, size = 32, 16 << 20 // more than the buffers of a connection
	s := serveSecured(t, false, "")
	blob := s.addImage(t, "team/app", size).Blobs[0].Digest
	client := s.connecting()
	bodies := make([]io.ReadCloser, clients)
	hashes := make([]digest.Digester, clients)
	for i := range bodies {
		resp, err := s.fetch(t, client, "/v2/team/app/blobs/"+blob.String())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.ContentLength != size || resp.Proto != "HTTP/1.1" {
			t.Fatalf("%s %s of %d bytes", resp.Proto, resp.Status, resp.ContentLength)
		}
		bodies[i], hashes[i] = resp.Body, digest.SHA256.Digester()
		if _, err := io.CopyN(hashes[i].Hash(), resp.Body, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	s.replace(t, client, "second")
	s.replace(t, client, "third")
	var reading sync.WaitGroup
	for i, body := range bodies {
		reading.Go(func() {
			if _, err := io.Copy(hashes[i].Hash(), body); err != nil || hashes[i].Digest() != blob {
				t.Errorf("client %d: %s, %v", i, hashes[i].Digest(), err)
			}
		})
	}
	reading.Wait()
	if left := value(s.metrics(t), "larder_tls_certificate_remaining_seconds"); left < 3000 || left > 3600 {
		t.Errorf("a certificate for an hour is good for %v s", left)
	}
}

func TestHTTPSAnswersAsHTTPDoes(t *testing.T) {
	s := serveSecured(t, false, "names: [cache.example.internal]\n")
	image := s.addImage(t, "team/app", 100_000)
	client, blob := s.connecting(), "/v2/team/app/blobs/"+image.Blobs[0].Digest.String()
	for _, rng := range []string{"bytes=10-19", "bytes=-10", "bytes=99990-"} { // while it fills, or from the disk
		resp, err := s.fetch(t, client, blob, "Range", rng)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // it was read
		if err != nil || resp.StatusCode != http.StatusPartialContent || len(body) != 10 {
			t.Errorf("%s: %s, %d bytes, %v", rng, resp.Status, len(body), err)
		}
	}
	for host, want := range map[string]int{"evil.example": http.StatusMisdirectedRequest, "cache.example.internal": http.StatusOK} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.listen+"/v2/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != want { // nothing is read of it
			t.Errorf("Host %s: %s, want %d", host, resp.Status, want)
		}
	}
	if status, body := s.status(t, s.listen, "/v2/", s.listen); status != http.StatusBadRequest || !strings.Contains(body, "HTTPS") {
		t.Errorf("plain HTTP: %d %s, want 400 that says why", status, body)
	}
	if status, _ := s.status(t, s.admin, "/healthz", s.admin); status != http.StatusOK {
		t.Errorf("the admin listener, over HTTP: %d", status)
	}
	old := s.connecting()
	old.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS11
	if resp, err := s.fetch(t, old, "/v2/"); err == nil {
		_ = resp.Body.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

func TestClientsNeedACertificateOfTheirAuthority(t *testing.T) {
	s := serveSecured(t, true, "log: {level: debug}\n")
	stranger := tlstest.NewAuthority(t)
	expired := s.ca.Issue(t, "expired", time.Now().Add(-time.Minute), tlstest.Pair{})
	for name, certs := range map[string][]tls.Certificate{
		"without": nil, "of another authority": {stranger.Server(t, "stranger").Load(t)}, "expired": {expired.Load(t)},
	} {
		if resp, err := s.fetch(t, s.connecting(certs...), "/v2/"); err == nil {
			t.Errorf("a client %s: %s", name, resp.Status)
			_ = resp.Body.Close()
		}
	}
	mine := s.ca.Server(t, "client").Load(t)
	s.seen(t, s.connecting(mine))

	// Sessions are not resumed: a client of an authority that was taken away is refused at once.
	client := s.connecting(mine)
	s.seen(t, client)
	cfg := *s.daemon.cfg
	cfg.TLS.ClientCA = stranger.File
	s.daemon.Reload(&cfg, nil)
	tick := time.Tick(pollInterval) // the files are read in the background
	for range 500 {
		resp, err := s.fetch(t, client, "/v2/")
		if err != nil {
			s.stop()
			requireNoKey(t, s.log.String(), s.pair)
			return
		}
		_ = resp.Body.Close() // nothing is read of it
		<-tick
	}
	t.Error("a client of an authority that was taken away is let in")
}

// requireNoKey fails the test if a text has some of a private key.
func requireNoKey(t *testing.T, text string, pair tlstest.Pair) {
	t.Helper()
	key, err := os.ReadFile(pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(key)) {
		if line = strings.TrimSpace(line); strings.Contains(text, line) {
			t.Errorf("the log has a line of the key:\n%s", text)
		}
	}
}

func TestStartWithoutValidFilesOfTLSIsRefused(t *testing.T) {
	dir := t.TempDir()
	cert := filepath.Join(dir, "tls.crt")
	if err := os.WriteFile(cert, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(writeConfig(t, fmt.Sprintf("listen: 127.0.0.1:0\nadmin: \"\"\ncache: {dir: cache, min_free: 0}\ntls: {cert: %q, key: %q}\n", cert, cert)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), cfg, Options{}); err == nil || !strings.Contains(err.Error(), cert) {
		t.Errorf("got %v", err)
	}
}

// pipeConfigs returns the settings of a TLS server, and those of a client that trusts it.
func pipeConfigs(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	ca := tlstest.NewAuthority(t)
	pair := ca.Server(t, "server")
	source, err := tlsfiles.Open(tlsfiles.Files{Cert: pair.Cert, Key: pair.Key}, noop.NewMeterProvider(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now() // outside of a bubble, whose clock is another
	return source.Config(), &tls.Config{RootCAs: ca.Pool, ServerName: "localhost", Time: func() time.Time { return now }}
}

func TestHandshakeMustEndWithinTenSeconds(t *testing.T) {
	config, _ := pipeConfigs(t)
	for name, hello := range map[string]string{"nothing": "", "half a hello": "\x16\x03\x01\x02\x00\x01\x00", "slowly": "\x16"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := dialServerOver(t, config)
				var writing sync.WaitGroup
				writing.Go(func() {
					_, err := io.WriteString(conn, hello)
					for err == nil && name == "slowly" {
						pass(time.Second)
						_, err = io.WriteString(conn, "\x03")
					}
				})
				requireClosedAfter(t, conn, 10*time.Second)
				_ = conn.Close() // a pipe's is nil
				writing.Wait()
			})
		})
	}
}

func TestHeaderOverTLSMustArriveWithinTenSeconds(t *testing.T) {
	server, client := pipeConfigs(t)
	synctest.Test(t, func(t *testing.T) {
		conn := tls.Client(dialServerOver(t, server), client)
		if err := conn.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		requireClosedAfter(t, conn, 10*time.Second)
	})
}

func TestAbortOverTLSIsAnUnexpectedEnd(t *testing.T) {
	config, trust := pipeConfigs(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limited, err := conns.Limit(l, "clients", conns.ForClients(1024, false), noop.NewMeterProvider(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := newTCPServer(limited, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write(bytes.Repeat([]byte("x"), 500))
		_ = http.NewResponseController(w).Flush() // the client is there
		panic(http.ErrAbortHandler)
	}), time.Minute, slog.New(slog.DiscardHandler))
	s.secure(config)
	ctx, drain := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.serve(ctx); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() { s.drainAfter(ctx) })
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: trust}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+l.Addr().String(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); n != 500 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes, %v; containerd resumes after io.ErrUnexpectedEOF alone", n, err)
	}
	_ = resp.Body.Close() // it was read
	client.CloseIdleConnections()
	drain()
	running.Wait()
}
