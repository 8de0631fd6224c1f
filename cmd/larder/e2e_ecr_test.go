package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// The image that every client pulls, and what a container made from it says.
const (
	imageRepository = "team/app"
	imageTag        = "1.0"
	greeting        = "hello from the larder"
)

// fakeECRCommand is the name under which this test binary is the fake ECR. Its argument is a static busybox.
const fakeECRCommand = "fake-ecr"

// fakeECRMain is the main function of that process: it ends when its standard input does, so that it never outlives
// the tests.
func fakeECRMain() {
	if err := runFakeECR(os.Args[1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", fakeECRCommand, err)
		os.Exit(1)
	}
}

// A fakeECRHello is the one line that the process writes when it is ready.
type fakeECRHello struct {
	Host     string // the registry's name, as images carry it
	Endpoint string // URL of the registry and the ECR API
	Control  string // URL of what the tests ask of the fake itself
	Image    ecrtest.Added
}

func runFakeECR(busybox string, stdin io.Reader, stdout io.Writer) (err error) {
	fake, err := ecrtest.Start(ecrtest.Options{})
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	defer func() { err = errors.Join(err, fake.Close()) }()
	image, err := addImage(fake.Server, busybox)
	if err != nil {
		return fmt.Errorf("adding the image: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening for the tests: %w", err)
	}
	control := &http.Server{Handler: controlHandler(fake.Server)}
	ended := make(chan error, 1)
	go func() { ended <- control.Serve(listener) }()

	err = json.NewEncoder(stdout).Encode(fakeECRHello{
		Host:     fake.Host(),
		Endpoint: fake.Endpoint,
		Control:  "http://" + listener.Addr().String(),
		Image:    *image,
	})
	if err == nil {
		_, err = io.Copy(io.Discard, stdin)
	}
	err = errors.Join(err, control.Close())
	<-ended
	return err
}

// addImage gives the fake an image that a container can be run from: busybox beside two layers large enough that a
// client takes its time over them, for two platforms, and an artifact that refers to it.
func addImage(s *ecrtest.Server, busyboxPath string) (*ecrtest.Added, error) {
	busybox, diffID, err := ecrtest.Busybox(busyboxPath)
	if err != nil {
		return nil, err
	}
	return s.AddImage(imageRepository, imageTag, ecrtest.Image{
		Layers: []ecrtest.Layer{
			{Content: busybox, MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: diffID},
			{Content: ecrtest.TarLayer("data/small", 1, 16<<20), MediaType: ocispec.MediaTypeImageLayer},
			{Content: ecrtest.TarLayer("data/large", 2, 64<<20), MediaType: ocispec.MediaTypeImageLayer},
		},
		Platforms: []string{"linux/amd64", "linux/arm64"},
		Cmd:       []string{"/bin/echo", greeting},
		Artifact:  true,
	})
}

// controlHandler lets the tests reach into the process.
func controlHandler(s *ecrtest.Server) http.Handler {
	removals := make(chan func(), 16) // of the faults injected; no test has so many
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(s.Stats())
	})
	mux.HandleFunc("POST /expire-tokens", func(http.ResponseWriter, *http.Request) {
		s.ExpireTokens()
	})
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var f ecrtest.Fault
		if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		removals <- s.Inject(f)
	})
	mux.HandleFunc("DELETE /faults", func(http.ResponseWriter, *http.Request) {
		for {
			select {
			case remove := <-removals:
				remove()
			default:
				return
			}
		}
	})
	return mux
}

// A fakeECR is the fake ECR's process, as a test sees it.
type fakeECR struct {
	fakeECRHello
	process *process
}

// startFakeECR starts the process and waits until it is ready.
func startFakeECR(t *testing.T) *fakeECR {
	t.Helper()
	cmd := exec.Command(require(t, fakeECRCommand), require(t, "busybox"))
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

// kill ends the process as a power cut would.
func (f *fakeECR) kill() { _ = f.process.stop(syscall.SIGKILL) }

// image is the name under which clients ask for the image.
func (f *fakeECR) image() string { return f.Host + "/" + imageRepository + ":" + imageTag }

// stats tells what was asked of the fake so far.
func (f *fakeECR) stats(t *testing.T) ecrtest.Stats {
	t.Helper()
	var stats ecrtest.Stats
	f.control(t, http.MethodGet, "/stats", nil, &stats)
	return stats
}

// expireTokens makes every token issued so far one that has expired.
func (f *fakeECR) expireTokens(t *testing.T) {
	t.Helper()
	f.control(t, http.MethodPost, "/expire-tokens", nil, nil)
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

func (f *fakeECR) control(t *testing.T, method, path string, in, out any) {
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
