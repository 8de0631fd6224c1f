package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/deploy/deploytest"
	"github.com/larder-registry/larder/upstream/ecrtest"
)

// The image that every client pulls, and the output of its container.
const (
	imageRepository = "team/app"
	imageTag        = "1.0"
	greeting        = "hello from the larder"
)

// A fakeECR is the process of the fake ECR.
type fakeECR struct {
	fakeECRHello
	process *process
}

// startFakeECR starts the process and waits until it is ready. While it is dead, nobody else listens on its addresses.
func startFakeECR(t testing.TB) *fakeECR {
	t.Helper()
	cmd := exec.Command(deploytest.Require(t, fakeECRCommand), deploytest.Require(t, "busybox"),
		deploytest.FreeAddress(t), deploytest.FreeAddress(t))
	cmd.Env = environ(t)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close() })
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd.Stdout = write
	p := start(t, cmd)
	_ = write.Close() // the process has its own

	hello, err := bufio.NewReader(read).ReadBytes('\n')
	if err != nil {
		t.Fatalf("waiting for the fake ECR: %v", err)
	}
	fake := &fakeECR{process: p}
	if err := json.Unmarshal(hello, &fake.fakeECRHello); err != nil {
		t.Fatalf("what the fake ECR said, %q: %v", hello, err)
	}
	return fake
}

// kill kills the process.
func (f *fakeECR) kill() { _ = f.process.stop(syscall.SIGKILL) }

// image is the name under which clients ask for the image.
func (f *fakeECR) image() string { return f.Host + "/" + imageRepository + ":" + imageTag }

// stats returns the requests to the fake so far.
func (f *fakeECR) stats(t testing.TB) ecrtest.Stats {
	t.Helper()
	var stats ecrtest.Stats
	f.control(t, http.MethodGet, "/stats", nil, &stats)
	return stats
}

// add puts one more image into the fake.
func (f *fakeECR) add(t testing.TB, image plainImage) *ecrtest.Added {
	t.Helper()
	var added ecrtest.Added
	f.control(t, http.MethodPost, "/images", image, &added)
	return &added
}

// limit limits each connection to storage to so many bytes a second.
func (f *fakeECR) limit(t testing.TB, bytesPerSecond int64) {
	t.Helper()
	f.control(t, http.MethodPost, "/bandwidth", bytesPerSecond, nil)
}

// expireTokens expires every token issued so far.
func (f *fakeECR) expireTokens(t *testing.T) {
	t.Helper()
	f.control(t, http.MethodPost, "/expire-tokens", nil, nil)
}

// expireURLs expires every signed URL issued so far.
func (f *fakeECR) expireURLs(t *testing.T) {
	t.Helper()
	f.control(t, http.MethodPost, "/expire-urls", nil, nil)
}

// hold makes every body that storage sends stop after so many bytes, until mend is called.
func (f *fakeECR) hold(t *testing.T, after int64) {
	t.Helper()
	f.inject(t, ecrtest.Fault{On: ecrtest.Storage, StallAfter: &after})
}

func (f *fakeECR) inject(t *testing.T, fault ecrtest.Fault) {
	t.Helper()
	f.control(t, http.MethodPost, "/faults", fault, nil)
}

// breakOff makes storage break off, once in each of several answers, in the middle of the image's largest blob.
func (f *fakeECR) breakOff(t *testing.T) {
	t.Helper()
	f.inject(t, ecrtest.Fault{On: ecrtest.Storage, Digest: f.largestBlob(), CutAfter: new(int64(3 << 20)), Times: 3})
}

// flipBit makes storage send a blob with one wrong bit, until mend is called.
func (f *fakeECR) flipBit(t *testing.T, blob digest.Digest) {
	t.Helper()
	offset := int64(1 << 20)
	f.inject(t, ecrtest.Fault{On: ecrtest.Storage, Digest: blob, FlipBit: &offset})
}

// mend removes every fault that was injected.
func (f *fakeECR) mend(t *testing.T) {
	t.Helper()
	f.control(t, http.MethodDelete, "/faults", nil, nil)
}

// largestBlob is the image's largest layer.
func (f *fakeECR) largestBlob() digest.Digest {
	return slices.MaxFunc(f.Image.Blobs, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Size, b.Size) }).Digest
}

func (f *fakeECR) control(t testing.TB, method, path string, in, out any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, method, f.Control+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport(t)}).Do(req)
	if err != nil {
		t.Fatalf("the fake ECR's control: %v", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		message, _ := io.ReadAll(resp.Body)
		t.Fatalf("the fake ECR's control, %s: %s %s", path, resp.Status, message)
	}
	if out == nil {
		return
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		t.Fatalf("the fake ECR's control, %s: %v", path, err)
	}
}
