package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	dto "github.com/prometheus/client_model/go"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// inside is "larder serve" in this process, in front of a fake ECR.
type inside struct {
	ecr           *ecrtest.Running
	listen, admin string // host:port
	log           *readyLog
	client        *http.Client
}

// readyLog keeps a log, and tells when a line says that Larder is ready.
type readyLog struct {
	once  sync.Once
	ready chan struct{}

	mu  sync.Mutex // guards what follows
	buf bytes.Buffer
}

func (l *readyLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("msg=ready ")) {
		l.once.Do(func() { close(l.ready) })
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *readyLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// serveInside serves until the test ends, or until stop is called. more is the end of the configuration.
func serveInside(t testing.TB, more string) (s *inside, stop func()) {
	t.Helper()
	awsForTests(t)
	ecr, err := ecrtest.Start(ecrtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ecr.Close(); err != nil {
			t.Error(err)
		}
	})
	s = &inside{
		ecr:    ecr,
		listen: freeAddress(t),
		admin:  freeAddress(t),
		log:    &readyLog{ready: make(chan struct{})},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "larder.yaml")
	writeFile(t, file, stackConfig(s.listen, s.admin, filepath.Join(dir, "cache"), ecr)+more)
	ctx, cancel := context.WithCancel(context.Background())
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, []string{"serve", "--config", file}, os.Environ(), io.Discard, s.log)
	}()
	stop = sync.OnceFunc(func() {
		s.client.CloseIdleConnections()
		cancel()
		if code := <-status; code != exitDone {
			t.Errorf("larder serve: exit status %d\n%s", code, s.log)
		}
	})
	t.Cleanup(stop)
	select {
	case <-s.log.ready:
	case code := <-status:
		status <- code
		t.Fatalf("larder serve ended at once\n%s", s.log)
	}
	return s, stop
}

// stackConfig is the beginning of a configuration with the fake ECR as its upstream.
func stackConfig(listen, admin, cache string, ecr *ecrtest.Running) string {
	return fmt.Sprintf(`listen: %s
admin: %q
cache: {dir: %s, min_free: 0}
default_upstream: %s
upstreams:
  - host: %s
    endpoint: %s
    ecr: {api_endpoint: %s}
`, listen, admin, cache, ecr.Host(), ecr.Host(), ecr.Endpoint, ecr.Endpoint)
}

// addImage puts an image with one layer of n bytes into a repository of the fake.
func (s *inside) addImage(t testing.TB, repository string, n int64) *ecrtest.Added {
	t.Helper()
	added, err := s.ecr.AddImage(repository, "v1", ecrtest.Image{Layers: []ecrtest.Layer{{Content: ecrtest.Random(1, n)}}})
	if err != nil {
		t.Fatal(err)
	}
	return added
}

// get reads a path of Larder to its end; headers come in pairs.
func (s *inside) get(t testing.TB, path string, header ...string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.listen+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s\n%s", path, resp.Status, s.log)
	}
}

// pull pulls an image by its tag as a client does that asks for one thing after the other, and waits until all that
// comes of it is done and counted.
func (s *inside) pull(t testing.TB, repository string, image *ecrtest.Added, header ...string) {
	t.Helper()
	s.get(t, "/v2/"+repository+"/manifests/v1", header...)
	for _, blob := range image.Blobs {
		s.get(t, "/v2/"+repository+"/blobs/"+blob.Digest.String(), header...)
	}
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		now := s.metrics(t)
		if value(now, "larder_requests_active")+value(now, "larder_fills_running") == 0 {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the pull did not end")
		}
	}
}

// metrics is what /metrics says, by name.
func (s *inside) metrics(t testing.TB) map[string]*dto.MetricFamily {
	t.Helper()
	resp, err := s.client.Get("http://" + s.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}
