package ecrtest_test

import (
	"errors"
	"io"
	"net/http"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestStoppedServerRefusesAndCutsConnections(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	path := c.addBlob(ecrtest.Random(1, 64<<20))
	url := c.signedURL(path)
	resp, err := c.http.Do(c.request(http.MethodGet, url))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	server.Stop()
	if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Errorf("a body that was being sent was not cut: %d bytes", n)
	}
	for _, u := range []string{url, server.Endpoint + path} {
		if _, err := c.try(c.request(http.MethodGet, u)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("GET %s: %v, want a refused connection", u, err)
		}
	}
	server.Stop()
}

func TestRestartedServerKeepsItsAddressesAndContent(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	path := c.addBlob(ecrtest.Bytes([]byte("hello")))
	url := c.signedURL(path)
	server.Stop()
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	wantBody(t, c.get(url), "hello")
	wantStatus(t, c.registry(http.MethodGet, path), http.StatusTemporaryRedirect)
	if err := server.Restart(); err == nil {
		t.Error("a running server started again")
	}
}

func TestStopEndsHangingRequests(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	path := c.addBlob(ecrtest.Bytes([]byte("hello")))
	arrived := make(chan struct{})
	defer server.Inject(ecrtest.Fault{On: ecrtest.Any, Hang: true, Notify: func() { close(arrived) }})()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-arrived:
			server.Stop()
		case <-t.Context().Done():
		}
	}()
	if _, err := c.try(c.request(http.MethodGet, server.Endpoint+path)); err == nil {
		t.Error("a request that hung got an answer")
	}
	await(t, arrived, "arrived")
	await(t, stopped, "stopped")
}

func TestStartAtReportsWhyItFails(t *testing.T) {
	server, _ := start(t, ecrtest.Options{})
	taken := server.Endpoint[len("http://"):]
	if _, err := ecrtest.StartAt(ecrtest.Options{}, taken, "127.0.0.1:0"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the port of the registry is taken: got %v", err)
	}
	if _, err := ecrtest.StartAt(ecrtest.Options{}, "127.0.0.1:0", taken); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the port of storage is taken: got %v", err)
	}
	if _, err := ecrtest.StartAt(ecrtest.Options{}, "127.0.0.1:0", "127.0.0.1"); err == nil {
		t.Error("an address without a port was accepted")
	}
}
