package ecrtest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func TestFaultActsOnSelectedRequests(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	one, two := c.addBlob(ecrtest.Bytes([]byte("one"))), c.addBlob(ecrtest.Bytes([]byte("two")))
	dgst := digest.Digest(one[strings.LastIndexByte(one, '/')+1:])
	urlOne, urlTwo := c.signedURL(one), c.signedURL(two)
	remove := server.Inject(ecrtest.Fault{
		On: ecrtest.Storage, Digest: dgst, Skip: 1, Times: 2,
		Status: http.StatusServiceUnavailable, Body: "slow down", Header: http.Header{"Retry-After": {"3"}},
	})
	wantStatus(t, c.get(urlTwo), http.StatusOK)
	wantStatus(t, c.get(urlOne), http.StatusOK)
	for range 2 {
		a := c.get(urlOne)
		wantStatus(t, a, http.StatusServiceUnavailable)
		wantHeader(t, a, "Retry-After", "3")
		wantBody(t, a, "slow down")
	}
	wantStatus(t, c.get(urlOne), http.StatusOK)
	remove()

	remove = server.Inject(ecrtest.Fault{On: ecrtest.Any, Status: http.StatusTooManyRequests})
	for range 3 {
		wantStatus(t, c.get(urlOne), http.StatusTooManyRequests)
		wantStatus(t, c.registry(http.MethodGet, "/v2/"), http.StatusTooManyRequests)
	}
	remove()
	remove()
	wantStatus(t, c.registry(http.MethodGet, "/v2/"), http.StatusOK)
}

func TestFaultOnADigestActsOnItsTag(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	raw := []byte(`{"schemaVersion":2}`)
	desc, err := server.AddManifest("team/app", "v1", ocispec.MediaTypeImageManifest, raw)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Inject(ecrtest.Fault{On: ecrtest.Manifest, Digest: desc.Digest, FlipBit: new(int64(2))})()
	raw[2] ^= 1
	for _, ref := range []string{"v1", desc.Digest.String()} {
		wantBody(t, c.registry(http.MethodGet, "/v2/team/app/manifests/"+ref), string(raw))
	}
}

func TestFaultChangesHeaders(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	path := c.addBlob(ecrtest.Bytes([]byte("hello")))
	defer server.Inject(ecrtest.Fault{On: ecrtest.Blob, Header: http.Header{
		"Location": {"http://169.254.169.254/"}, "Docker-Distribution-Api-Version": nil,
	}})()
	a := c.registry(http.MethodGet, path)
	wantStatus(t, a, http.StatusTemporaryRedirect)
	wantHeader(t, a, "Location", "http://169.254.169.254/")
	if a.Header.Values("Docker-Distribution-Api-Version") != nil {
		t.Error("a header without values was sent")
	}
}

func TestFaultCutsTheBody(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	content := ecrtest.Random(1, 1<<20)
	whole := string(readAll(t, content))
	url := c.signedURL(c.addBlob(content))
	for _, at := range []int64{0, 1, 300_000, 1<<20 - 1} {
		server.ResetStats()
		remove := server.Inject(ecrtest.Fault{On: ecrtest.Storage, CutAfter: new(at)})
		a := c.get(url)
		remove()
		if !errors.Is(a.err, io.ErrUnexpectedEOF) || a.body != whole[:at] {
			t.Errorf("cut after %d: %d bytes and %v", at, len(a.body), a.err)
		}
		if got := server.Stats().Bytes(); got != at {
			t.Errorf("cut after %d: %d bytes counted", at, got)
		}
	}
	defer server.Inject(ecrtest.Fault{On: ecrtest.Storage, CutAfter: new(int64(1 << 20))})()
	wantBody(t, c.get(url), whole)
}

func TestFaultFlipsOneBit(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	content := ecrtest.Random(1, 1<<20)
	url := c.signedURL(c.addBlob(content))
	defer server.Inject(ecrtest.Fault{On: ecrtest.Storage, FlipBit: new(int64(600_000))})()
	want := readAll(t, content)
	want[600_000] ^= 1
	wantBody(t, c.get(url), string(want))
	wantBody(t, c.get(url, "Range", "bytes=600000-600009"), string(want[600_000:600_010]))
	wantBody(t, c.get(url, "Range", "bytes=600001-"), string(want[600_001:]))
}

func TestStorageWithoutRangeSendsEverything(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	url := c.signedURL(c.addBlob(ecrtest.Bytes([]byte("hello"))))
	defer server.Inject(ecrtest.Fault{On: ecrtest.Storage, NoRange: true})()
	a := c.get(url, "Range", "bytes=1-2")
	wantStatus(t, a, http.StatusOK)
	wantHeader(t, a, "Accept-Ranges", "")
	wantBody(t, a, "hello")
}

func TestRefusedConnectionEndsWithoutAnAnswer(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	path := c.addBlob(ecrtest.Bytes([]byte("hello")))
	defer server.Inject(ecrtest.Fault{On: ecrtest.Blob, Refuse: true})()
	req := c.request(http.MethodGet, server.Endpoint+path)
	if a, err := c.try(req); !errors.Is(err, io.EOF) {
		t.Errorf("got %v and %v, want no answer", a.Response, err)
	}
}

func TestHangingRequestGoesOnWhenTheFaultIsRemoved(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	path := c.addBlob(ecrtest.Bytes([]byte("hello")))
	arrived := make(chan struct{})
	remove := server.Inject(ecrtest.Fault{On: ecrtest.Blob, Hang: true, Notify: func() { close(arrived) }})
	go func() {
		defer remove()
		select {
		case <-arrived:
		case <-t.Context().Done():
		}
	}()
	wantStatus(t, c.registry(http.MethodGet, path), http.StatusTemporaryRedirect)
}

func TestHangingRequestEndsWhenTheClientLeaves(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	ctx, leave := context.WithCancel(t.Context())
	defer server.Inject(ecrtest.Fault{On: ecrtest.Any, Hang: true, Notify: leave})()
	for _, req := range []*http.Request{
		c.request(http.MethodGet, server.Endpoint+"/v2/"),
		c.request(http.MethodPost, server.Endpoint+"/"),
	} {
		if a, err := c.try(req.WithContext(ctx)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v and %v", req.Method, a.Response, err)
		}
	}
}

func TestStalledBodyGoesOnWhenTheFaultIsRemoved(t *testing.T) {
	server, c := start(t, ecrtest.Options{})
	content := ecrtest.Random(1, 1<<20)
	whole := string(readAll(t, content))
	url := c.signedURL(c.addBlob(content))
	remove := server.Inject(ecrtest.Fault{On: ecrtest.Storage, StallAfter: new(int64(1000))})
	resp, err := c.http.Do(c.request(http.MethodGet, url))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 1000)
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		t.Fatal(err)
	}
	if got := server.Stats().Bytes(); got != 1000 {
		t.Errorf("%d bytes sent before the stall", got)
	}
	remove()
	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(first)+string(rest) != whole {
		t.Errorf("after the stall: %d bytes, %v", len(rest), err)
	}
}

func TestDelayAddsToLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := ecrtest.New(ecrtest.Options{})
		req := signed(t, server, ecrtest.Bytes([]byte("x")))
		server.SetLatency(time.Second)
		defer server.Inject(ecrtest.Fault{On: ecrtest.Storage, Delay: time.Minute})()
		started := time.Now()
		server.Storage().ServeHTTP(httptest.NewRecorder(), req)
		if took := time.Since(started); took != time.Minute+time.Second {
			t.Errorf("answered after %v", took)
		}
	})
}

func TestHangLastsUntilRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := ecrtest.New(ecrtest.Options{})
		req := signed(t, server, ecrtest.Bytes([]byte("x")))
		remove := server.Inject(ecrtest.Fault{On: ecrtest.Storage, Hang: true})
		started := time.Now()
		time.AfterFunc(30*time.Minute, remove)
		w := httptest.NewRecorder()
		server.Storage().ServeHTTP(w, req)
		if took := time.Since(started); took != 30*time.Minute || w.Body.String() != "x" {
			t.Errorf("answered %q after %v", w.Body, took)
		}
	})
}
