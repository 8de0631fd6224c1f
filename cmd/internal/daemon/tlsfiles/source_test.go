package tlsfiles

// White-box: the tests look at the files when they want, and not every five seconds.

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles/tlstest"
	"github.com/larder-registry/larder/proxy/livefile"
)

// open returns a source and its log.
func open(t *testing.T, files Files) (*Source, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	s, err := Open(files, noop.NewMeterProvider(), slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s, log
}

// common returns the name of the certificate that a new connection sees.
func common(t *testing.T, s *Source) string {
	t.Helper()
	config, err := s.Config().GetConfigForClient(new(tls.ClientHelloInfo))
	if err != nil {
		t.Fatal(err)
	}
	return config.Certificates[0].Leaf.Subject.CommonName
}

func TestReplacedFilesAreUsedWithinSeconds(t *testing.T) {
	ca := tlstest.NewAuthority(t)
	pair := ca.Server(t, "first")
	synctest.Test(t, func(t *testing.T) {
		s, log := open(t, Files{Cert: pair.Cert, Key: pair.Key, ClientCA: ca.File})
		log.Reset() // in the bubble's time the certificate is not valid yet
		ctx, stop := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		<-time.After(time.Minute)
		if got := common(t, s); got != "first" || log.Len() > 0 {
			t.Errorf("files that stay: %s\n%s", got, log)
		}
		ca.Issue(t, "second", time.Now().Add(time.Hour), pair, "127.0.0.1")
		<-time.After(livefile.Every)
		synctest.Wait()
		if got := common(t, s); got != "second" {
			t.Errorf("after %v: %s\n%s", livefile.Every, got, log)
		}
		stop()
		running.Wait()
	})
}

func TestUseReadsFilesAtOnce(t *testing.T) {
	ca := tlstest.NewAuthority(t)
	first, second := ca.Server(t, "first"), ca.Server(t, "second")
	synctest.Test(t, func(t *testing.T) {
		s, _ := open(t, Files{Cert: first.Cert, Key: first.Key})
		ctx, stop := context.WithCancel(context.Background())
		s.Use(Files{Cert: "nowhere", Key: "nowhere"}) // before Run: the last call counts
		s.Use(Files{Cert: second.Cert, Key: second.Key, ClientCA: ca.File})
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		synctest.Wait()
		if got := common(t, s); got != "second" {
			t.Errorf("got %s", got)
		}
		if s.current.Load().ClientAuth != tls.RequireAndVerifyClientCert {
			t.Error("clients need no certificate, although there is a client_ca")
		}
		stop()
		running.Wait()
	})
}

func TestBrokenFilesKeepThoseBeforeAndAreLoggedOnce(t *testing.T) {
	ca := tlstest.NewAuthority(t)
	other := ca.Server(t, "other")
	for name, test := range map[string]struct {
		spoil func(p tlstest.Pair) error
		file  func(p tlstest.Pair) string // that the log names
	}{
		"the key of another": {func(p tlstest.Pair) error { return copyFile(other.Key, p.Key) }, func(p tlstest.Pair) string { return p.Key }},
		"no certificate":     {func(p tlstest.Pair) error { return os.Remove(p.Cert) }, func(p tlstest.Pair) string { return p.Cert }},
		"half a certificate": {func(p tlstest.Pair) error { return os.Truncate(p.Cert, 100) }, func(p tlstest.Pair) string { return p.Cert }},
		"an empty key":       {func(p tlstest.Pair) error { return os.Truncate(p.Key, 0) }, func(p tlstest.Pair) string { return p.Key }},
		"a text":             {func(p tlstest.Pair) error { return os.WriteFile(p.Key, []byte("hunter2"), 0o600) }, func(p tlstest.Pair) string { return p.Key }},
		"a huge key":         {func(p tlstest.Pair) error { return os.Truncate(p.Key, maxFile+1) }, func(p tlstest.Pair) string { return p.Key }},
		"a pipe": {func(p tlstest.Pair) error {
			_ = os.Remove(p.Key) // Mkfifo fails if it is there
			return syscall.Mkfifo(p.Key, 0o600)
		}, func(p tlstest.Pair) string { return p.Key }},
	} {
		t.Run(name, func(t *testing.T) {
			pair := ca.Server(t, "first")
			s, log := open(t, Files{Cert: pair.Cert, Key: pair.Key})
			if err := test.spoil(pair); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				s.Look()
			}
			if got := common(t, s); got != "first" {
				t.Errorf("new connections see %q", got)
			}
			text := log.String()
			if strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, test.file(pair)) || strings.Contains(text, "hunter2") {
				t.Errorf("want one error that names %s:\n%s", test.file(pair), text)
			}
			if _, err := (Files{Cert: pair.Cert, Key: pair.Key}).Check(); err == nil || !strings.Contains(err.Error(), test.file(pair)) {
				t.Errorf("Check: %v", err)
			}
			_ = os.Remove(pair.Key) // it may be a pipe
			ca.Issue(t, "second", time.Now().Add(time.Hour), pair)
			s.Look()
			if got := common(t, s); got != "second" {
				t.Errorf("mended files: new connections see %q", got)
			}
		})
	}
}

func TestAuthoritiesWithoutACertificateAreRefused(t *testing.T) {
	ca := tlstest.NewAuthority(t)
	pair := ca.Server(t, "server")
	empty := filepath.Join(t.TempDir(), "clients.crt")
	if err := os.WriteFile(empty, []byte("# none yet\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Files{Cert: pair.Cert, Key: pair.Key, ClientCA: empty}, noop.NewMeterProvider(), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), empty) {
		t.Errorf("got %v; without an authority, no client or every client would be let in", err)
	}
}

func TestExpiryOfACertificateIsToldInTime(t *testing.T) {
	ca := tlstest.NewAuthority(t)
	expires := time.Now().Add(-time.Hour) // the authority's certificates begin two days before
	pair := ca.Issue(t, "server", expires, tlstest.Pair{}, "cache.example.internal", "192.0.2.7")
	c, err := Files{Cert: pair.Cert, Key: pair.Key}.Check()
	if err != nil {
		t.Fatal(err)
	}
	for before, want := range map[time.Duration]string{
		72 * time.Hour: "is valid from", 24 * time.Hour: "expires at", -time.Minute: "has expired",
	} {
		if got := c.Problem(expires.Add(-before)); !strings.Contains(got, want) {
			t.Errorf("%v before the end: %q, want %q", before, got, want)
		}
	}
	year := Certificate{&x509.Certificate{NotAfter: expires.Add(365 * 24 * time.Hour)}}
	if got := year.Problem(expires); got != "" {
		t.Errorf("a year before the end: %q", got)
	}
	if got := c.Names(); got != "cache.example.internal, 192.0.2.7" {
		t.Errorf("names: %s", got)
	}
	if _, log := open(t, Files{Cert: pair.Cert, Key: pair.Key}); !strings.Contains(log.String(), "has expired") {
		t.Errorf("the log does not say that the certificate has expired:\n%s", log)
	}
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}
