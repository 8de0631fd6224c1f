package proxy_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/proxy"
)

// scripted is an upstream in memory. A test may replace the way it answers. It is not safe for
// concurrent changes.
type scripted struct {
	host      string
	manifests map[string][]byte // by tag and by digest, whatever the repository
	blobs     map[digest.Digest][]byte
	// list answers lists; nil means that there are none.
	list func(ctx context.Context, resource string, query url.Values) (http.Header, []byte, error)
}

// admitKey is the key under which a context has the admission of documents.
type admitKey struct{}

func withAdmission(ctx context.Context, admit func(context.Context, int64) error) context.Context {
	return context.WithValue(ctx, admitKey{}, admit)
}

// admit is what a real upstream does before it reads a large document.
func admit(ctx context.Context, size int) error {
	return ctx.Value(admitKey{}).(func(context.Context, int64) error)(ctx, int64(size))
}

func (u *scripted) Manifest(ctx context.Context, _, reference string, _ bool) (ocispec.Descriptor, []byte, error) {
	raw, ok := u.manifests[reference]
	if !ok {
		return ocispec.Descriptor{}, nil, fmt.Errorf("manifest %s: %w", reference, fs.ErrNotExist)
	}
	if err := admit(ctx, len(raw)); err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw, nil
}

func (u *scripted) BlobSize(_ context.Context, _ string, d digest.Digest) (int64, error) {
	content, ok := u.blobs[d]
	if !ok {
		return 0, fmt.Errorf("blob %s: %w", d, fs.ErrNotExist)
	}
	return int64(len(content)), nil
}

func (u *scripted) List(ctx context.Context, _, resource string, query url.Values) (http.Header, []byte, error) {
	if u.list == nil {
		return nil, nil, fmt.Errorf("%s: %w", resource, fs.ErrNotExist)
	}
	return u.list(ctx, resource, query)
}

// serveScripted returns a Larder in front of scripted upstreams, whose clients wait for at most
// 20 seconds.
func serveScripted(t *testing.T, opts cache.Options, upstreams ...*scripted) *proxy.Proxy {
	t.Helper()
	dir := t.TempDir()
	opts.ScrubEvery, opts.Log = -1, slog.New(slog.DiscardHandler)
	store, err := cache.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if err := cachetest.Check(dir); err != nil {
			t.Error(err)
		}
	})
	return proxy.New(proxy.Options{
		Store: store,
		Log:   opts.Log,
		Upstreams: func(host, _ string) (proxy.Source, error) {
			for _, u := range upstreams {
				if u.host == host {
					return proxy.Source{Upstream: u, WithAdmission: withAdmission, Timeout: 20 * time.Second}, nil
				}
			}
			return proxy.Source{}, proxy.ErrNotConfigured
		},
	})
}

// ask sends a request to a Larder in this process.
func ask(t *testing.T, larder http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	larder.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w
}
