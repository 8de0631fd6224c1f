package upstream

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sendManifest answers with the manifest of most tests.
func sendManifest(w http.ResponseWriter, dgst digest.Digest) {
	w.Header().Set("Content-Type", manifestType)
	if dgst != "" {
		w.Header().Set("Docker-Content-Digest", dgst.String())
	}
	_, _ = io.WriteString(w, manifestBody)
}

// wantManifest asks for the descriptor of tag v1, and wants the whole manifest.
func wantManifest(t *testing.T, r *Registry) {
	t.Helper()
	desc, body, err := r.Manifest(t.Context(), repo, "v1", true)
	if err != nil || string(body) != manifestBody {
		t.Errorf("got %q, %v", body, err)
	}
	wantDesc(t, desc, ocispec.Descriptor{MediaType: manifestType, Digest: digest.FromString(manifestBody), Size: int64(len(manifestBody))})
}

func TestGETDecidesIfHEADFails(t *testing.T) {
	for _, status := range []int{
		http.StatusBadRequest, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotAcceptable,
		http.StatusInternalServerError, http.StatusNotImplemented, http.StatusServiceUnavailable,
		http.StatusNoContent, http.StatusFound, // without a Location
	} {
		var asked []string
		r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/v2/" {
				return // no login is wanted
			}
			asked = append(asked, req.Method)
			if req.Method == http.MethodHead {
				w.WriteHeader(status)
				return
			}
			sendManifest(w, "")
		})
		wantManifest(t, r)
		if diff := cmp.Diff([]string{"HEAD", "GET"}, asked); diff != "" {
			t.Errorf("%d: asked (-want +got):\n%s", status, diff)
		}
	}
}

// A presigned URL is good for one method only.
func TestGETDecidesIfTheStorageRefusesHEAD(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed} {
		storage := serve(t, func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodHead {
				w.WriteHeader(status)
				return
			}
			sendManifest(w, "")
		})
		r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, storage.URL+"/x?signature=y", http.StatusTemporaryRedirect)
		})
		wantManifest(t, r)
	}
}

func TestHEADDecidesThatATagIsGone(t *testing.T) {
	var asked []string
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/v2/" {
			return // no login is wanted
		}
		asked = append(asked, req.Method)
		http.NotFound(w, req)
	})
	if _, _, err := r.Manifest(t.Context(), repo, "v1", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"HEAD"}, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestManifestByTagHasTheAlgorithmThatTheRegistryNames(t *testing.T) {
	sha256, sha512 := digest.FromString(manifestBody), digest.SHA512.FromString(manifestBody)
	for header, want := range map[digest.Digest]digest.Digest{
		sha512:                                 sha512,
		sha256:                                 sha256,
		"":                                     sha256,
		digest.SHA512.FromString("a lie"):      sha256,
		digest.SHA384.FromString(manifestBody): sha256, // registries need not know it
	} {
		r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, _ *http.Request) { sendManifest(w, header) })
		desc, _, err := r.Manifest(t.Context(), repo, "v1", false)
		if err != nil || desc.Digest != want {
			t.Errorf("header %q: %s, %v; want %s", header, desc.Digest, err, want)
		}
	}
}

// The body of a 101 is the connection, which has no end.
func TestSwitchedProtocolIsAnError(t *testing.T) {
	for question, ask := range questions {
		done := make(chan struct{})
		r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			<-done
		})
		t.Cleanup(func() { close(done) })
		if err := ask(t.Context(), r, someBlob); err == nil || !strings.Contains(err.Error(), "101") {
			t.Errorf("%s: %v", question, err)
		}
	}
}

func TestBlobThatCannotBeOneIsNotFound(t *testing.T) {
	for name, header := range map[string]http.Header{
		"a login page":    {"Content-Type": {"text/html; charset=utf-8"}},
		"in other case":   {"Content-Type": {"Text/HTML"}},
		"a page of XML":   {"Content-Type": {"application/xhtml+xml"}},
		"a part as a 200": {"Content-Type": {"application/octet-stream"}, "Content-Range": {"bytes 0-0/7"}},
	} {
		r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
			for name, values := range header {
				w.Header()[name] = values
			}
			_, _ = io.WriteString(w, "content")
		})
		for _, question := range []string{"blob", "has blob"} {
			if err := questions[question](t.Context(), r, someBlob); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %s: %v", name, question, err)
			}
		}
	}
}

// Storage that wants a session sends its login page once that is over.
func TestURLThatLeadsToALoginPageIsAskedForAgain(t *testing.T) {
	over := false
	storage := serve(t, func(w http.ResponseWriter, req *http.Request) {
		if over && req.URL.Path == "/first" {
			w.Header().Set("Content-Type", "text/html")
		}
		_, _ = io.WriteString(w, "content")
	})
	paths := []string{"/first", "/second"}
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, storage.URL+paths[0], http.StatusTemporaryRedirect)
		paths = paths[1:]
	})
	for range 2 {
		if err := questions["blob"](t.Context(), r, someBlob); err != nil {
			t.Error(err)
		}
		over = true
	}
	if len(paths) > 0 {
		t.Error("the registry was not asked again")
	}
}
