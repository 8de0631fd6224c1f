package proxy

// White-box: what a document takes does not show from outside.

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/larder-registry/larder/cache"
)

const registryHost = "registry.test"

// registry is an upstream with one large document, which is admitted before it is answered.
type registry struct {
	raw    []byte
	digest digest.Digest // by the answer
	err    error
}

// admission is the key of a context's admit.
type admission struct{}

func withAdmission(ctx context.Context, admit func(context.Context, int64) error) context.Context {
	return context.WithValue(ctx, admission{}, admit)
}

func (r registry) read(ctx context.Context) error {
	admit := ctx.Value(admission{}).(func(context.Context, int64) error)
	return errors.Join(admit(ctx, int64(len(r.raw))), r.err)
}

func (r registry) Manifest(ctx context.Context, _, _ string, _ bool) (ocispec.Descriptor, []byte, error) {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: r.digest, Size: int64(len(r.raw))}, r.raw, r.read(ctx)
}

func (r registry) List(ctx context.Context, _, _ string, _ url.Values) (http.Header, []byte, error) {
	return http.Header{}, r.raw, r.read(ctx)
}

func (registry) BlobSize(context.Context, string, digest.Digest) (int64, error) { return 0, nil }

// requireFree fails the test unless no document takes memory.
func requireFree(t *testing.T, m memory) {
	t.Helper()
	for _, all := range []struct {
		*semaphore.Weighted
		bytes int64
	}{
		{m.manifests.all, maxManifests}, {m.manifests.of(registryHost), maxManifests / 2}, {m.decoding, maxDecoding},
		{m.lists.all, maxLists}, {m.lists.of(registryHost), maxLists / 2},
	} {
		if !all.TryAcquire(all.bytes) {
			t.Fatal("a document that is over takes memory")
		}
		all.Release(all.bytes)
	}
}

func TestDocumentsGiveTheirMemoryBack(t *testing.T) {
	store, err := cache.Open(t.TempDir(), cache.Options{ScrubEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	m := newMemory()
	p, l := &pulls{store: store, memory: m}, lists{store: store, memory: m}
	padding := strings.Repeat(" ", smallDocument+1)
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}` + padding)
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}` + padding)
	tags := []byte(`{"name":"app","tags":["v1"]}` + padding)
	for name, test := range map[string]struct {
		registry
		ok bool
	}{
		"good":         {registry{raw: manifest, digest: digest.FromBytes(manifest)}, true},
		"mismatched":   {registry{raw: manifest, digest: digest.FromString("another")}, false},
		"no manifest":  {registry{raw: []byte(padding), digest: digest.FromString(padding)}, false},
		"not readable": {registry{raw: manifest, digest: digest.FromBytes(manifest), err: errors.New("broken off")}, false},
	} {
		tg := target{repo: cache.Repository{Upstream: registryHost, Name: strings.ReplaceAll(name, " ", "-")}}
		tg.source = Source{Upstream: test.registry, Timeout: time.Minute, WithAdmission: withAdmission}
		dgst := digest.FromBytes(test.raw)
		if _, _, err := store.Manifest(t.Context(), tg.repo, dgst, p.askManifest(tg)); (err == nil) != test.ok {
			t.Errorf("%s by digest: %v", name, err)
		}
		requireFree(t, m)
		if _, _, err := store.Tag(t.Context(), tg.repo, "v1", p.askManifest(tg)); (err == nil) != test.ok {
			t.Errorf("%s by tag: %v", name, err)
		}
		requireFree(t, m)
	}
	for name, test := range map[string]struct {
		raw    []byte
		answer func(*recorder, *http.Request, target) error
		ok     bool
	}{
		"tags":           {tags, l.tags, true},
		"no tags":        {[]byte(padding + "}"), l.tags, false},
		"referrers":      {index, l.referrers, true},
		"no referrers":   {tags, l.referrers, false},
		"odd referrers":  {[]byte(padding + "}"), l.referrers, false},
		"huge referrers": {append(index, make([]byte, 2*maxLists)...), l.referrers, false},
	} {
		tg := target{route: route{name: "app", digest: digest.FromString(name)}, repo: cache.Repository{Upstream: registryHost, Name: "app"}}
		tg.source = Source{Upstream: registry{raw: test.raw}, Timeout: time.Minute, WithAdmission: withAdmission}
		w := &recorder{ResponseWriter: new(nothing)}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://larder/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if err := test.answer(w, r, tg); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
		requireFree(t, m)
	}
}

// nothing is a ResponseWriter that keeps nothing.
type nothing struct{ header http.Header }

func (n *nothing) Header() http.Header {
	if n.header == nil {
		n.header = make(http.Header)
	}
	return n.header
}
func (*nothing) Write(p []byte) (int, error) { return len(p), nil }
func (*nothing) WriteHeader(int)             {}

func TestLargeDocumentsWaitForEachOther(t *testing.T) {
	m := newMemory()
	var held []*share
	for range maxManifests / 2 / (4 << 20) {
		s := m.manifest(registryHost)
		if err := s.read(t.Context(), 4<<20); err != nil {
			t.Fatal(err)
		}
		held = append(held, s)
	}
	if err := held[0].decode(t.Context(), 4<<20); err != nil {
		t.Fatal(err)
	}
	late, cancel := context.WithCancel(t.Context())
	cancel()
	for name, wait := range map[string]func(context.Context) error{
		"another read":   func(ctx context.Context) error { return m.manifest(registryHost).read(ctx, 4<<20) },
		"another decode": func(ctx context.Context) error { return held[1].decode(ctx, 4<<20) },
	} {
		if err := wait(late); !errors.Is(err, context.Canceled) {
			t.Errorf("%s beyond the bound: %v", name, err)
		}
	}
	another := m.manifest("another.test")
	if err := another.read(t.Context(), 4<<20); err != nil {
		t.Errorf("another upstream waits: %v", err)
	}
	another.release()
	if err := errors.Join(m.manifest(registryHost).read(late, smallDocument), m.manifest(registryHost).decode(late, smallDocument)); err != nil {
		t.Errorf("a small document waits: %v", err)
	}
	held[0].decoded()
	if err := held[1].decode(t.Context(), 4<<20); err != nil {
		t.Error(err)
	}
	for _, s := range held {
		s.release()
		s.release()
	}
	requireFree(t, m)
}

func TestMemoryOfAListIsGivenBackWhenItsClientHasLeft(t *testing.T) {
	m := newMemory()
	own, client := m.list(registryHost), m.list(registryHost)
	if err := errors.Join(own.read(t.Context(), 1<<20), own.decode(t.Context(), 1<<20)); err != nil {
		t.Fatal(err)
	}
	client.end()
	own.moveTo(client)
	requireFree(t, m)

	client = m.list(registryHost)
	if err := own.read(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	own.moveTo(client)
	own.release()
	if m.lists.all.TryAcquire(maxLists) {
		t.Error("the list is not counted while its client takes it")
	}
	client.end()
	requireFree(t, m)
}
