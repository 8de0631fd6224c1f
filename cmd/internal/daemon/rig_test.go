package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	dto "github.com/prometheus/client_model/go"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// inside is a daemon in this process, in front of a fake ECR.
type inside struct {
	ecr           *ecrtest.Running
	listen, admin string // host:port
	cacheDir      string
	log           *safeLog
	client        *http.Client
	daemon        *Daemon
}

// safeLog keeps a log. It is safe for concurrent use.
type safeLog struct {
	mu  sync.Mutex // guards what follows
	buf bytes.Buffer
}

func (l *safeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *safeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// serveInside serves until the test ends, or until stop is called. more is the end of the configuration file.
func serveInside(t testing.TB, more string, overrides ...config.Override) (s *inside, stop func()) {
	t.Helper()
	ecr := startECR(t)
	cfg, err := config.Load(writeConfig(t, configFor(ecr)+more), overrides...)
	if err != nil {
		t.Fatal(err)
	}
	s, stop = serve(t, cfg, 0)
	s.ecr = ecr
	t.Cleanup(stop)
	return s, stop
}

// startECR starts a fake ECR that runs until the test ends, and sets its credentials.
func startECR(t testing.TB) *ecrtest.Running {
	t.Helper()
	ecr, err := ecrtest.Start(ecrtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ecr.Close(); err != nil {
			t.Error(err)
		}
	})
	setCredentials(t, ecr)
	return ecr
}

// serve serves until stop is called. patience is [Options.PeerPatience].
func serve(t testing.TB, cfg *config.Config, patience time.Duration) (s *inside, stop func()) {
	t.Helper()
	log := new(safeLog)
	d, err := New(t.Context(), cfg, Options{Version: "v0.0.0-test", Env: os.Environ(), Log: NewLogger(cfg.Log, log), PeerPatience: patience})
	if err != nil {
		t.Fatal(err)
	}
	s = &inside{
		listen:   d.Addr().String(),
		admin:    d.listeners.admin.Addr().String(),
		cacheDir: cfg.Cache.Dir,
		log:      log,
		daemon:   d,
		client:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(d.Serve(ctx), d.Close()) }()
	stop = sync.OnceFunc(func() {
		s.client.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the daemon ended with %v\n%s", err, log)
		}
	})
	return s, stop
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
