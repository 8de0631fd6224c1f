package upstream

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/pace"
)

// The storage of this simulation answers about as S3 does: every answer begins after
// storageLatency, and then every connection gets storageRate. Blobs have a 64th of the size of
// the layers that they stand for, and segments and the rate too.
const (
	shrunk         = 64
	storageLatency = 30 * time.Millisecond
	storageRate    = 50 << 20 / shrunk // bytes a second
	storageSegment = 8 << 20 / shrunk
)

// slowDown is S3's answer to too many requests.
const slowDown = `<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`

// simulatedStorage is a registry and its storage, which refuses three requests in a row. It is
// safe for concurrent use.
type simulatedStorage struct {
	layers  map[digest.Digest][]byte
	refuses int64 // the number of the first request that is refused, from 1
	asked   atomic.Int64
	refused atomic.Int64 // how many were
}

func (s *simulatedStorage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" {
		return
	}
	dgst := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	if !strings.HasPrefix(r.URL.Path, "/storage/") {
		http.Redirect(w, r, "http://storage.test/storage/"+dgst, http.StatusTemporaryRedirect)
		return
	}
	pass(storageLatency)
	if n := s.asked.Add(1); s.refuses <= n && n < s.refuses+3 {
		s.refused.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, slowDown)
		return
	}
	http.ServeContent(&paced{w}, r, "", time.Time{}, strings.NewReader(string(s.layers[digest.Digest(dgst)])))
}

// paced sends as fast as the storage does.
type paced struct{ http.ResponseWriter }

func (p *paced) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		next := b[:min(len(b), 4<<10)]
		pass(time.Duration(len(next)) * time.Second / storageRate)
		var sent int
		sent, err = p.ResponseWriter.Write(next)
		_ = http.NewResponseController(p.ResponseWriter).Flush()
		n, b = n+sent, b[sent:]
	}
	return n, err
}

// pullTwice pulls two images, of 47 and 446 MB, one after the other, and returns how long each
// took. Their layers come three at a time, as containerd asks for them.
func pullTwice(t *testing.T, storage *simulatedStorage) (took [2]time.Duration) {
	t.Helper()
	r := startInBubble(t, storage.ServeHTTP)
	store, err := cache.Open(t.TempDir(), cache.Options{Segment: storageSegment, ScrubEvery: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	seed := uint64(0)
	for i, sizes := range [][]int64{{32 << 20, 12 << 20, 3 << 20}, {200 << 20, 130 << 20, 70 << 20, 30 << 20, 16 << 20}} {
		var image []digest.Digest
		for _, size := range sizes {
			seed++
			layer := make([]byte, size/shrunk)
			if _, err := ecrtest.Random(seed, size/shrunk).ReadAt(layer, 0); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			dgst := digest.FromBytes(layer)
			storage.layers[dgst] = layer
			image = append(image, dgst)
		}
		began := time.Now()
		var clients sync.WaitGroup
		places := make(chan struct{}, 3)
		for _, dgst := range image {
			places <- struct{}{}
			clients.Go(func() {
				defer func() { <-places }()
				if err := pullLayer(t.Context(), store, r, dgst); err != nil {
					t.Error(err)
				}
			})
		}
		clients.Wait()
		took[i] = time.Since(began)
		if got := siteOf(r).throttle.storage("storage.test").Backlog(); got != (pace.Backlog{}) {
			t.Errorf("storage is limited after image %d: %+v", i, got)
		}
	}
	pass(time.Second) // the storage notices who has left
	return took
}

func pullLayer(ctx context.Context, store *cache.Store, r *Registry, dgst digest.Digest) error {
	blob, err := store.Open(ctx, dgst, cache.Source{
		Upstream: "registry.test", Repository: repo,
		Fetch: func(ctx context.Context, part cache.Range) (cache.Content, error) {
			content, err := r.OpenBlob(ctx, repo, dgst, Range(part))
			return cache.Content(content), err
		},
	})
	if err != nil {
		return err
	}
	defer blob.Close()
	_, err = io.Copy(io.Discard, blob)
	return err
}

// S3 refuses a few requests now and then. The refusals are tried at the first requests of the
// layers, at extra connections, and at the last request of an image, in the first and in the
// second image. No rate may be set: pullTwice looks at that.
func TestThreeRefusalsOfStorageCostNoMoreThanThePullTakes(t *testing.T) {
	pull := func(refuses int64) (took [2]time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			storage := &simulatedStorage{layers: make(map[digest.Digest][]byte), refuses: refuses}
			took = pullTwice(t, storage)
			if n := storage.refused.Load(); refuses > 0 && n != 3 {
				t.Errorf("%d requests were refused", n)
			}
		})
		return took
	}
	usual := pull(-3)
	for _, first := range []int64{1, 2, 4, 6, 7, 8, 9, 12, 18, 19} {
		took := pull(first)
		t.Logf("from request %d: %v, and usually %v", first, took, usual)
		for i, image := range []string{"47 MB", "446 MB"} {
			if took[i] > 2*usual[i] {
				t.Errorf("requests %d to %d are refused: %s took %v, and usually %v", first, first+2, image, took[i], usual[i])
			}
		}
	}
}
