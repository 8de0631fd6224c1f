package upstream

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/reply"
)

func TestManifestIsDescribedByItsBytes(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	for algorithm, want := range map[digest.Algorithm]digest.Digest{
		digest.SHA256: digest.SHA256.FromString(manifestBody),
		digest.SHA384: digest.SHA384.FromString(manifestBody),
		digest.SHA512: digest.SHA512.FromString(manifestBody),
	} {
		// The header may say what it likes.
		r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", manifestType+"; charset=utf-8")
			w.Header().Set("Docker-Content-Digest", someBlob.String())
			_, _ = io.WriteString(w, manifestBody)
		})
		desc, body, err := r.Manifest(t.Context(), repo, algorithm.FromString("what was asked for").String(), false)
		if err != nil {
			t.Fatal(err)
		}
		wantDesc(t, desc, ocispec.Descriptor{MediaType: manifestType, Digest: want, Size: int64(len(manifestBody))})
		if string(body) != manifestBody {
			t.Errorf("got %q", body)
		}
	}
	desc, _, err := server.Manifest(t.Context(), repo, "v1", false)
	if err != nil {
		t.Fatal(err)
	}
	wantDesc(t, desc, ocispec.Descriptor{
		MediaType: manifestType, Digest: digest.FromString(manifestBody), Size: int64(len(manifestBody)),
	})
}

func wantDesc(t *testing.T, got, want ocispec.Descriptor) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("descriptor (-want +got):\n%s", diff)
	}
}

func TestHEADAloneTellsTheDigest(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	desc, body, err := server.Manifest(t.Context(), repo, "v1", true)
	if err != nil || body != nil {
		t.Fatalf("got %d bytes, %v", len(body), err)
	}
	wantDesc(t, desc, ocispec.Descriptor{MediaType: manifestType, Digest: digest.FromString(manifestBody)})
	if got := server.Stats(); got.Requests[ecrtest.Manifest] != 1 || got.Heads[ecrtest.Manifest] != 1 {
		t.Errorf("asked for manifests %d times, %d of them by HEAD", got.Requests[ecrtest.Manifest], got.Heads[ecrtest.Manifest])
	}
}

func TestHEADWithoutADigestIsFollowedByAGET(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	for _, header := range []string{"", "sha256:short", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		remove := server.Inject(ecrtest.Fault{On: ecrtest.Manifest, Header: http.Header{"Docker-Content-Digest": {header}}})
		desc, body, err := server.Manifest(t.Context(), repo, "v1", true)
		if err != nil || string(body) != manifestBody {
			t.Fatalf("header %q: got %q, %v", header, body, err)
		}
		wantDesc(t, desc, ocispec.Descriptor{
			MediaType: manifestType, Digest: digest.FromString(manifestBody), Size: int64(len(manifestBody)),
		})
		remove()
	}
}

func TestAllTypesOfManifestAreAccepted(t *testing.T) {
	var accepted []string
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, req *http.Request) {
		accepted = append(accepted, req.Header.Get("Accept"))
		_, _ = io.WriteString(w, manifestBody)
	})
	if _, _, err := r.Manifest(t.Context(), repo, "v1", true); err != nil { // HEAD and GET
		t.Fatal(err)
	}
	if len(accepted) != 2 {
		t.Fatalf("%d requests, want 2", len(accepted))
	}
	for _, accept := range accepted {
		for _, mediaType := range []string{
			"application/vnd.oci.image.index.v1+json",
			"application/vnd.oci.image.manifest.v1+json",
			"application/vnd.docker.distribution.manifest.list.v2+json",
			"application/vnd.docker.distribution.manifest.v2+json",
		} {
			if !strings.Contains(accept, mediaType) {
				t.Errorf("Accept: %s lacks %s", accept, mediaType)
			}
		}
	}
}

func TestManifestMayHave4MiBAndNoMore(t *testing.T) {
	var size int
	var asked int
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_, _ = io.WriteString(w, strings.Repeat("x", size))
	})
	size = 4 << 20
	if _, body, err := r.Manifest(t.Context(), repo, "v1", false); err != nil || len(body) != size {
		t.Errorf("%d bytes: got %d, %v", size, len(body), err)
	}
	size, asked = 4<<20+1, 0
	if _, body, err := r.Manifest(t.Context(), repo, "v1", false); err == nil {
		t.Errorf("%d bytes: got %d", size, len(body))
	}
	if asked != 1 {
		t.Errorf("asked %d times for a document that is too large, want once", asked)
	}
}

func TestListIsAPageOfTheUpstream(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	for i := range 3 {
		if _, err := server.AddManifest(repo, fmt.Sprintf("v%d", i), manifestType, []byte(manifestBody)); err != nil {
			t.Fatal(err)
		}
	}
	header, body, err := server.List(t.Context(), repo, "tags/list", url.Values{"n": {"2"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"name":"team/app","tags":["v0","v1"]}`; string(body) != want {
		t.Errorf("got %s, want %s", body, want)
	}
	if !strings.Contains(header.Get("Link"), `rel="next"`) {
		t.Errorf("the link to the next page is lost: %v", header)
	}
}

func TestStatusIsTheKindOfError(t *testing.T) {
	for status, kind := range map[int]error{
		http.StatusNotFound:            fs.ErrNotExist,
		http.StatusGone:                fs.ErrNotExist,
		http.StatusUnauthorized:        fs.ErrPermission,
		http.StatusForbidden:           fs.ErrPermission,
		http.StatusTooManyRequests:     nil,
		http.StatusInternalServerError: nil,
		http.StatusServiceUnavailable:  nil,
		http.StatusTeapot:              nil,
		http.StatusNoContent:           nil,
		http.StatusTemporaryRedirect:   nil, // without a Location
	} {
		// A shorter timeout than the upstream wants to be left alone.
		r, _ := startPlain(t, Config{Timeout: time.Second}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(status)
		})
		for question, ask := range questions {
			err := ask(t.Context(), r, someBlob)
			var refusal *reply.Error
			if !errors.As(err, &refusal) || refusal.Status != status {
				t.Errorf("%s, %d: %v", question, status, err)
				continue
			}
			if notExist := errors.Is(err, fs.ErrNotExist); notExist != errors.Is(kind, fs.ErrNotExist) {
				t.Errorf("%s, %d: being %v is %t", question, status, fs.ErrNotExist, notExist)
			}
			if permission := errors.Is(err, fs.ErrPermission); permission != errors.Is(kind, fs.ErrPermission) {
				t.Errorf("%s, %d: being %v is %t", question, status, fs.ErrPermission, permission)
			}
			if refusal.Throttled() != (status == http.StatusTooManyRequests) || refusal.RetryAfter() != 3*time.Second {
				t.Errorf("%s, %d: throttled %t, for %v", question, status, refusal.Throttled(), refusal.RetryAfter())
			}
		}
	}
}

func TestTemporaryFailuresAreTriedAgainAFewTimes(t *testing.T) {
	for name, test := range map[string]struct {
		fault ecrtest.Fault
		tries int
	}{
		"500":                      {ecrtest.Fault{Status: http.StatusInternalServerError}, 3},
		"502":                      {ecrtest.Fault{Status: http.StatusBadGateway}, 3},
		"503":                      {ecrtest.Fault{Status: http.StatusServiceUnavailable}, 3},
		"504":                      {ecrtest.Fault{Status: http.StatusGatewayTimeout}, 3},
		"a cut body":               {ecrtest.Fault{CutAfter: new(int64(1))}, 3},
		"404":                      {ecrtest.Fault{Status: http.StatusNotFound}, 1},
		"501":                      {ecrtest.Fault{Status: http.StatusNotImplemented}, 1},
		"429 and to wait a minute": {ecrtest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"60"}}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			server := startECR(t, ecrtest.Options{})
			var acted atomic.Int64
			test.fault.On = ecrtest.Manifest
			test.fault.Notify = func() { acted.Add(1) }
			remove := server.Inject(test.fault)
			if _, _, err := server.Manifest(t.Context(), repo, "v1", false); err == nil {
				t.Fatal("a failure without end is no error")
			}
			if got := int(acted.Load()); got != test.tries {
				t.Errorf("asked %d times, want %d", got, test.tries)
			}
			remove()
			if test.tries > 1 {
				test.fault.Times = test.tries - 1
				server.Inject(test.fault)
				if _, _, err := server.Manifest(t.Context(), repo, "v1", false); err != nil {
					t.Errorf("a failure that passes: %v", err)
				}
			}
		})
	}
}

func TestDeadUpstreamFailsWithin2Seconds(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Bytes([]byte("content")))
	if err := questions["blob"](t.Context(), server.Registry, dgst); err != nil { // there is a token, and a URL
		t.Fatal(err)
	}
	server.Stop()
	for question, ask := range questions {
		before := time.Now()
		err := ask(t.Context(), server.Registry, dgst)
		if took := time.Since(before); took > 2*time.Second {
			t.Errorf("%s: failed after %v", question, took)
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", question, err)
		}
	}
}
