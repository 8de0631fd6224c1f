package daemon

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// startS3 starts a real store with the API of S3 that runs until the test ends, with a bucket of that name and the credentials
// of the environment. It returns its URL.
func startS3(t *testing.T, bucket string) string {
	t.Helper()
	program := deploytest.Require(t, "versitygw")
	dir, meta := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	port, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := port.Addr().String()
	if err := port.Close(); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "versitygw.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, "--port", at, "posix", "--sidecar", meta, dir)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+os.Getenv("AWS_ACCESS_KEY_ID"), "ROOT_SECRET_KEY="+os.Getenv("AWS_SECRET_ACCESS_KEY"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		resp, err := client.Get("http://" + at + "/" + bucket)
		if err == nil {
			resp.Body.Close()
			return "http://" + at
		}
		select {
		case <-time.After(pollInterval):
		case <-t.Context().Done():
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("versitygw does not answer: %v\n%s", err, text)
		}
	}
}

// settings for a real store.
func s3Settings(url, keyFile string, write bool) string {
	return fmt.Sprintf("shared:\n  s3: {bucket: images, endpoint: %q, path_style: true, write: %t, prefix: larder}\n  key_file: %q\n", url, write, keyFile)
}

// Two nodes of a zone put each object once into a real store, a layer in parts among them; another cluster pulls the whole image
// from there with the upstream dead, and a tag of an index too.
func TestRealStoreGivesAnotherClusterTheWholeImage(t *testing.T) {
	z := newZone(t)
	store := startS3(t, "images")
	keyFile := filepath.Join(t.TempDir(), "shared.key")
	(&tier{}).newKey(t, keyFile)
	for range 3 {
		z.start(t, peerPatience, s3Settings(store, keyFile, true))
	}
	z.awaitNodes(t, 3)
	image, bytes := z.addLayers(t, "team/app", 70<<20, 3<<20, 1000)
	z.ecr.ResetStats()
	z.pullAtOnce(t, "team/app", image)
	z.wantUpstream(t, bytes, 1)
	objects := int64(len(image.Blobs) + 1)
	for {
		var put, queued int64
		for _, s := range z.nodes {
			status := s.daemon.shelf.Status()
			put, queued = put+status.Put, queued+status.Queued
		}
		if put > objects {
			t.Fatalf("%d objects were put, want %d", put, objects)
		}
		if put == objects && queued == 0 {
			break
		}
		select {
		case <-time.After(pollInterval):
		case <-t.Context().Done():
			t.Fatalf("%d objects were put, want %d\n%s", put, objects, z.nodes[0].log)
		}
	}
	for i, s := range z.nodes {
		if status := s.daemon.shelf.Status(); status.Writing != "" || status.Wrong > 0 {
			t.Errorf("node %d: %+v", i, status)
		}
		if strings.Contains(s.log.String(), "ignores If-None-Match") {
			t.Errorf("node %d says that the store ignores conditions", i)
		}
	}
	z.ecr.Stop()
	r := &tier{ecr: z.ecr}
	other, _ := r.startWith(t, configFor(z.ecr)+s3Settings(store, keyFile, false))
	if err := other.pullWhole(t.Context(), "team/app", image); err != nil {
		t.Fatalf("%v\n%s", err, other.log)
	}
	if taken := other.daemon.shelf.Status().Taken; taken < bytes {
		t.Errorf("%d bytes came from the bucket, of %d", taken, bytes)
	}
}
