package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/admin"
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
func (r *tier) start(t testing.TB, write bool, keyFile string, more string, overrides ...config.Override) (s *inside, stop func()) {
	t.Helper()
	return r.startWith(t, r.settings(write, keyFile)+configFor(r.ecr)+more, overrides...)
}

// startWith starts a cluster with a configuration.
func (r *tier) startWith(t testing.TB, settings string, overrides ...config.Override) (s *inside, stop func()) {
	t.Helper()
	cfg, err := config.Load(writeConfig(t, settings), overrides...)
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

// A bucket that has lost everything gets back the image whose tag a node confirms.
func TestNodePutsBackAnImageThatTheBucketHasLost(t *testing.T) {
	r := newTier(t)
	added := image(t, r.ecr, "team/app", 3000, 1000)
	first, stop := r.start(t, false, r.key, "tags: {ttl: 0s}\n")
	dir := first.cacheDir
	first.pull(t, "team/app", added)
	stop()
	again, _ := r.start(t, true, r.key, "tags: {ttl: 0s}\n", config.Override{Key: "cache.dir", Value: dir, Source: "a test"})
	again.get(t, "/v2/team/app/manifests/v1")
	r.awaitPut(t, again, len(added.Blobs)+1)
}

func TestBucketIsShownToOperators(t *testing.T) {
	r := newTier(t)
	s, _ := r.start(t, true, r.key, "")
	added := image(t, r.ecr, "team/app", 1000)
	s.pull(t, "team/app", added)
	r.awaitPut(t, s, len(added.Blobs)+1)
	commands := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return Dial(ctx, s.cacheDir) }}
	defer commands.CloseIdleConnections()
	resp, err := (&http.Client{Transport: commands}).Get("http://larder/api/v1/activity")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var activity admin.Activity
	if err := json.NewDecoder(resp.Body).Decode(&activity); err != nil {
		t.Fatal(err)
	}
	if b := activity.Shared; b == nil || b.Bucket != "s3://images/larder/" || !b.Writes || !b.Seals || b.Put != int64(len(added.Blobs)+1) || b.Given < 1000 {
		t.Errorf("the activity tells %+v of the bucket", b)
	}
}

func TestNodeStartsWithoutTheBucketIfTheAWSConfigurationIsWrong(t *testing.T) {
	r := newTier(t)
	t.Setenv("AWS_PROFILE", "missing")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "config"))
	s, _ := r.start(t, true, r.key, "")
	if s.daemon.shelf != nil || !strings.Contains(s.log.String(), "shares nothing through the bucket") {
		t.Errorf("the log says nothing:\n%s", s.log)
	}
}

func TestTryBucketUsesTheConfiguration(t *testing.T) {
	r := newTier(t)
	for _, write := range []bool{true, false} {
		cfg, err := config.Load(writeConfig(t, r.settings(write, r.key)+configFor(r.ecr)))
		if err != nil {
			t.Fatal(err)
		}
		found, err := TryBucket(t.Context(), cfg)
		if err != nil || found.Reached != nil || found.Read != nil || found.Written != nil || found.Heeds != write {
			t.Errorf("a bucket that works: %+v, %v", found, err)
		}
	}
}

// Whatever the bucket does, clients get the image, and the bucket is left alone.
func TestPullsAreUnharmedByABucketThatFails(t *testing.T) {
	forever := make(chan struct{})
	t.Cleanup(func() { close(forever) })
	for name, fault := range map[string]buckettest.Fault{
		"fails":        {Status: http.StatusInternalServerError, Code: "InternalError"},
		"throttles":    {Status: http.StatusServiceUnavailable, Code: "SlowDown"},
		"denies":       {Status: http.StatusForbidden, Code: "AccessDenied"},
		"is silent":    {Hold: forever},
		"breaks off":   {Cut: 700},
		"falls silent": {Stall: 700},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTier(t)
			added := image(t, r.ecr, "team/app", 2<<20, 5000)
			first, stop := r.start(t, true, r.key, "")
			first.pull(t, "team/app", added)
			r.awaitPut(t, first, len(added.Blobs)+1)
			stop()
			r.store.Fail(func(buckettest.Request) buckettest.Fault { return fault })
			second, _ := r.start(t, true, r.key, "")
			if err := second.pullWhole(t.Context(), "team/app", added); err != nil {
				t.Errorf("%v\n%s", err, second.log)
			}
			// A body that breaks off once or twice is no failure of the bucket.
			if fault.Cut == 0 && !strings.Contains(second.log.String(), "the bucket fails") {
				t.Errorf("the log says nothing:\n%s", second.log)
			}
		})
	}
}

// A runner that may write the bucket puts another object under a digest's name: who was being sent it is cut before its last
// byte, and gets the right one when it asks again, from the upstream.
func TestWrongObjectIsServedToNobody(t *testing.T) {
	r := newTier(t)
	added := image(t, r.ecr, "team/app", 300_000)
	first, _ := r.start(t, true, r.key, "")
	first.pull(t, "team/app", added)
	r.awaitPut(t, first, len(added.Blobs)+1)
	for name, content := range r.store.Objects() {
		if strings.Contains(name, "/blobs/") {
			r.store.Put(name, make([]byte, len(content)))
		}
	}
	second, _ := r.start(t, false, r.key, "")
	for range 2 {
		if err := second.pullWhole(t.Context(), "team/app", added); err == nil {
			break
		}
	}
	if err := second.pullWhole(t.Context(), "team/app", added); err != nil {
		t.Errorf("%v\n%s", err, second.log)
	}
	if wrong := second.daemon.shelf.Status().Wrong; wrong == 0 {
		t.Errorf("nothing is counted as wrong:\n%s", second.log)
	}
}

// A runner that may write the bucket, and has no key, puts an image of its own with its tag and memberships.
func TestWriterOfTheBucketWithoutTheKeyIsServedToNobody(t *testing.T) {
	r := newTier(t)
	added := image(t, r.ecr, "team/app", 5000)
	runnersKey := filepath.Join(t.TempDir(), "own.key")
	r.newKey(t, runnersKey)
	runner, _ := r.start(t, true, runnersKey, "")
	runner.pull(t, "team/app", added)
	r.awaitPut(t, runner, len(added.Blobs)+1)
	r.ecr.Stop()
	for name, keyFile := range map[string]string{"another key": r.key, "none": ""} {
		s, _ := r.start(t, false, keyFile, "")
		if err := s.pullWhole(t.Context(), "team/app", added); err == nil {
			t.Errorf("a node with %s has served the image", name)
		}
		for _, blob := range added.Blobs {
			if status := s.statusOf(t, "/v2/team/app/blobs/"+blob.Digest.String()); status < 400 {
				t.Errorf("a node with %s has served a blob: %d", name, status)
			}
		}
	}
}

// An upstream that is declared offline is not asked, and the bucket is.
func TestBucketIsAskedForAnOfflineUpstream(t *testing.T) {
	r := newTier(t)
	added := image(t, r.ecr, "team/app", 5000)
	first, _ := r.start(t, true, r.key, "")
	first.pull(t, "team/app", added)
	r.awaitPut(t, first, len(added.Blobs)+1)
	second, _ := r.start(t, false, r.key, "    offline: true\n")
	r.ecr.ResetStats()
	if err := second.pullWhole(t.Context(), "team/app", added); err != nil {
		t.Errorf("%v\n%s", err, second.log)
	}
	if stats := r.ecr.Stats(); stats.Bytes() > 0 || len(stats.Requests) > 0 {
		t.Errorf("the upstream was asked: %+v", stats)
	}
}

// Of an upstream at which the clients' own rights decide, nothing goes in or comes out; and of one that is allowed in part,
// the rest does not come out.
func TestRightsHoldForTheBucket(t *testing.T) {
	r := newTier(t)
	added := image(t, r.ecr, "team/app", 5000)
	first, _ := r.start(t, true, r.key, "")
	first.pull(t, "team/app", added)
	r.awaitPut(t, first, len(added.Blobs)+1)
	before := len(r.store.Requests(""))
	r.ecr.Stop()
	for name, rights := range map[string]string{
		"access: client": "    access: client\naccess: {key_file: " + filepath.Join(t.TempDir(), "key", "access.key") + "}\n",
		"another allow":  "    allow: [\"other/*\"]\n",
	} {
		s, _ := r.start(t, false, r.key, rights)
		if err := s.pullWhole(t.Context(), "team/app", added); err == nil {
			t.Errorf("a node with %s has served the image", name)
		}
	}
	if asked := r.store.Requests("")[before:]; len(asked) > 0 {
		t.Errorf("the bucket was asked: %v", asked)
	}
}

// A repository that shares nothing with others of its upstream gets only what a record says that it has.
func TestAllowedRepositoryIsGivenWhatARecordSaysThatItHas(t *testing.T) {
	r := newTier(t)
	added := image(t, r.ecr, "team/app", 5000)
	first, _ := r.start(t, true, r.key, "")
	first.pull(t, "team/app", added)
	r.awaitPut(t, first, len(added.Blobs)+1)
	r.ecr.Stop()
	second, _ := r.start(t, false, r.key, "    allow: [\"team/*\"]\n")
	if err := second.pullWhole(t.Context(), "team/app", added); err != nil {
		t.Errorf("%v\n%s", err, second.log)
	}
	if status := second.statusOf(t, "/v2/team/other/blobs/"+added.Blobs[0].Digest.String()); status < 400 {
		t.Errorf("another repository was given a blob: %d", status)
	}
}
