package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// A decoy is an address that Larder must not connect to.
type decoy struct {
	addr    string
	port    string
	dialled atomic.Int64
}

// startDecoy listens on loopback and counts connections.
func startDecoy(t *testing.T) *decoy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &decoy{addr: l.Addr().String()}
	_, d.port, _ = net.SplitHostPort(d.addr)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			d.dialled.Add(1)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return d
}

// requireUntouched ends Larder, so that its log is complete. It fails the test if Larder connected to the decoy, or if
// the log lacks one of these texts.
func (d *decoy) requireUntouched(t *testing.T, s *stack, logged ...string) {
	t.Helper()
	if err := s.larder.stop(syscall.SIGTERM); err != nil {
		t.Errorf("larder was told to end: %v", err)
	}
	if n := d.dialled.Load(); n != 0 {
		t.Errorf("larder connected %d times where it must not", n)
	}
	log := s.larder.logged()
	for _, text := range logged {
		if !strings.Contains(log, text) {
			t.Errorf("larder did not log %q", text)
		}
	}
}

func TestUnconfiguredHostIsNotDialled(t *testing.T) {
	t.Parallel()
	s, d := startStack(t), startDecoy(t)
	const repository = "team/app/manifests/1.0"
	var logged []string
	for _, path := range []string{
		repository + "?ns=" + d.addr,
		repository + "?ns=localhost:" + d.port,
		repository + "?ns=169.254.169.254",
		repository + "?ns=ghcr.io",
		d.addr + "/" + repository,
		"localhost:" + d.port + "/" + repository,
	} {
		requireRefusal(t, "http://"+s.listen+"/v2/"+path, "NAME_UNKNOWN")
		if repository, ns, ok := strings.Cut(path, "?ns="); ok {
			path = repository + "?ns=" + url.QueryEscape(ns)
		}
		logged = append(logged, path)
	}
	if asked := s.ecr.stats(t).Requests; len(asked) != 0 {
		t.Errorf("the upstream that is configured was asked instead: %v", asked)
	}
	d.requireUntouched(t, s, logged...)
}

// The upstream is at an address of this machine that is not loopback, which to Larder is another machine's.
func TestUpstreamCannotLeadToLoopback(t *testing.T) {
	t.Parallel()
	d := startDecoy(t)
	targets := []string{
		"http://" + d.addr,
		"http://localhost:" + d.port,
		"http://0.0.0.0:" + d.port,
		"http://[::ffff:127.0.0.1]:" + d.port,
		"http://169.254.169.254",
	}
	upstream := startUpstream(t, outwardAddress(t), func(w http.ResponseWriter, r *http.Request) {
		for i, target := range targets {
			if strings.HasPrefix(r.URL.Path, fmt.Sprintf("/v2/target-%d/", i)) {
				http.Redirect(w, r, target+"/stolen", http.StatusTemporaryRedirect)
			}
		}
	})
	s := newStack(t, fmt.Sprintf("upstreams: [{host: leads.example, endpoint: %q}]\n", upstream))
	s.startLarder(t)
	logged := []string{"redirect not followed"}
	for i, target := range targets {
		base := fmt.Sprintf("http://%s/v2/leads.example/target-%d/", s.listen, i)
		requireRefusal(t, base+"manifests/1.0", "UNAVAILABLE")
		requireRefusal(t, base+"blobs/"+unknownDigest, "BLOB_UNKNOWN")
		logged = append(logged, "a redirect to "+target+" is refused")
	}
	d.requireUntouched(t, s, logged...)
}

func TestRealmOnAnotherDomainGetsNoCredentials(t *testing.T) {
	t.Parallel()
	d := startDecoy(t)
	realm := "http://localhost:" + d.port
	upstream := startUpstream(t, "127.0.0.1:0", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="registry"`, realm))
		w.WriteHeader(http.StatusUnauthorized)
	})
	password := t.TempDir() + "/password"
	writeFile(t, password, "secret")
	s := newStack(t, fmt.Sprintf("upstreams: [{host: asks.example, endpoint: %q, auth: {username: larder, password_file: %q}}]\n",
		upstream, password))
	s.startLarder(t)
	base := "http://" + s.listen + "/v2/asks.example/team/app/"
	requireRefusal(t, base+"manifests/1.0", "UNAVAILABLE")
	requireRefusal(t, base+"blobs/"+unknownDigest, "BLOB_UNKNOWN")
	d.requireUntouched(t, s, "token service is refused", realm)
}

// startUpstream serves the test's own registry and returns its URL.
func startUpstream(t *testing.T, addr string, handler http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}}
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// outwardAddress returns an address to listen on at which other machines could reach this one.
func outwardAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && !prefix.Addr().IsLoopback() && !prefix.Addr().IsLinkLocalUnicast() {
			return netip.AddrPortFrom(prefix.Addr(), 0).String()
		}
	}
	t.Skip("this machine has no address but its loopback ones, so nothing can play an upstream elsewhere")
	return ""
}
