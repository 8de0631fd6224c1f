package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/bucket/buckettest"
	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/peer/ring"
)

// tier is some clusters of one node each, with a bucket and a fake ECR for all.
type tier struct {
	ecr   *ecrtest.Running
	store *buckettest.Store
	key   string // shared.key_file
}

func newTier(t testing.TB) *tier {
	t.Helper()
	r := &tier{ecr: startECR(t), store: buckettest.Start(t), key: filepath.Join(t.TempDir(), "shared.key")}
	r.newKey(t, r.key)
	return r
}

func (r *tier) newKey(t testing.TB, file string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(ring.NewKey().Encode()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// settings are the keys of a node that shares through the bucket.
func (r *tier) settings(write bool, keyFile string) string {
	text := fmt.Sprintf("shared:\n  s3: {bucket: %s, endpoint: %q, path_style: true, write: %t, prefix: larder}\n", buckettest.Bucket, r.store.URL, write)
	if keyFile != "" {
		text += fmt.Sprintf("  key_file: %q\n", keyFile)
	}
	return text
}

// start starts a cluster.
func (r *tier) start(t testing.TB, write bool, keyFile string, more string) (s *inside, stop func()) {
	t.Helper()
	cfg, err := config.Load(writeConfig(t, r.settings(write, keyFile)+configFor(r.ecr)+more))
	if err != nil {
		t.Fatal(err)
	}
	s, stop = serve(t, cfg, 0)
	s.ecr = r.ecr
	t.Cleanup(stop)
	return s, stop
}

// awaitPut waits until nothing waits to be put into the bucket, and n objects of content are there.
func (r *tier) awaitPut(t testing.TB, s *inside, n int) {
	t.Helper()
	for {
		content := 0
		for name := range r.store.Objects() {
			if strings.Contains(name, "/blobs/") {
				content++
			}
		}
		if st := s.daemon.shelf.Status(); st.Queued == 0 && content == n {
			return
		}
		select {
		case <-time.After(pollInterval):
		case <-t.Context().Done():
			t.Fatalf("%d objects are in the bucket, want %d: %+v\n%s", content, n, s.daemon.shelf.Status(), s.log)
		}
	}
}

func image(t testing.TB, ecr *ecrtest.Running, repository string, sizes ...int64) *ecrtest.Added {
	t.Helper()
	var layers []ecrtest.Layer
	for i, n := range sizes {
		layers = append(layers, ecrtest.Layer{Content: ecrtest.Random(uint64(i+1), n)})
	}
	added, err := ecr.AddImage(repository, "v1", ecrtest.Image{Layers: layers})
	if err != nil {
		t.Fatal(err)
	}
	return added
}

func TestSecondClusterPullsWholeImageFromTheBucketWithTheUpstreamDead(t *testing.T) {
	r := newTier(t)
	first, _ := r.start(t, true, r.key, "")
	added := image(t, r.ecr, "team/app", 9<<20, 300<<10, 1000)
	first.pull(t, "team/app", added)
	r.awaitPut(t, first, len(added.Blobs)+1)
	r.ecr.Stop()
	second, _ := r.start(t, false, r.key, "")
	if err := second.pullWhole(t.Context(), "team/app", added); err != nil {
		t.Fatalf("%v\n%s", err, second.log)
	}
}

func TestMetricsOfTheBucketAreThoseThatAreDocumented(t *testing.T) {
	r := newTier(t)
	s, _ := r.start(t, true, r.key, "")
	added := image(t, r.ecr, "team/app", 1000)
	s.pull(t, "team/app", added)
	wantDocumented(t, s.metrics(t), "larder_shared_", 6)
}
