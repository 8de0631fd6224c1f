package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocilayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// writeLayout writes a layout that holds a random image and an index under these annotations, and returns both.
func writeLayout(t *testing.T, dir string, forImage, forIndex map[string]string) (v1.Image, v1.ImageIndex) {
	t.Helper()
	image, err := random.Image(100_000, 2)
	if err != nil {
		t.Fatal(err)
	}
	index, err := random.Index(10_000, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	path, err := ocilayout.FromPath(dir)
	if err != nil {
		path, err = ocilayout.Write(dir, emptyIndex(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(image, ocilayout.WithAnnotations(forImage)); err != nil {
		t.Fatal(err)
	}
	if err := path.AppendIndex(index, ocilayout.WithAnnotations(forIndex)); err != nil {
		t.Fatal(err)
	}
	return image, index
}

func emptyIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	index, err := random.Index(0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// writeTar packs a folder.
func writeTar(t *testing.T, dir, file string) {
	t.Helper()
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: "./" + inside, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// patience is how long tests wait for what takes little time, so that they fail rather than hang.
const patience = time.Minute

// running is the command while it runs.
type running struct {
	t        *testing.T
	greeting string
	endpoint string
	client   *http.Client
	ctx      context.Context // ends with the command, at the latest after patience
	end      func() (status int, stderr string)
}

// start starts the command with these flags on a free port, and waits for its greeting.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	// At the deadline the command ends, and with it all that waits for it.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	r, w := io.Pipe()
	var stderr bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		status := run(ctx, append([]string{"--addr", "127.0.0.1:0"}, args...), w, &stderr)
		w.Close()
		ended <- status
	}()
	var greeting strings.Builder
	out := bufio.NewReader(r)
	for !strings.Contains(greeting.String(), "crane pull") {
		line, err := out.ReadString('\n')
		if err != nil {
			t.Fatalf("it ended with %d: %s", <-ended, stderr.String())
		}
		greeting.WriteString(line)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, out) // ends when the command closes the pipe
	}()
	transport := &http.Transport{}
	end := func() (int, string) {
		cancel()
		status := <-ended
		<-drained
		ended <- status
		transport.CloseIdleConnections()
		return status, stderr.String()
	}
	t.Cleanup(func() {
		if status, stderr := end(); status != exitDone {
			t.Errorf("it ended with %d: %s", status, stderr)
		}
	})
	endpoint := regexp.MustCompile(`https?://127\.0\.0\.1:\d+`).FindString(greeting.String())
	return &running{t, greeting.String(), endpoint, &http.Client{Transport: transport, Timeout: patience}, ctx, end}
}

// auth gets a token from the ECR API.
func (r *running) auth() authn.Authenticator {
	r.t.Helper()
	out, err := ecr.New(ecr.Options{
		BaseEndpoint: aws.String(r.endpoint),
		Region:       "us-east-1",
		Credentials:  credentials.NewStaticCredentialsProvider("AKIDLARDERTEST", "secret", ""),
		HTTPClient:   r.client,
	}).GetAuthorizationToken(r.t.Context(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(*out.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		r.t.Fatal(err)
	}
	user, password, _ := strings.Cut(string(raw), ":")
	return &authn.Basic{Username: user, Password: password}
}

// remote returns the reference of an image and the options to pull it with.
func (r *running) remote(image string) (name.Reference, []remote.Option) {
	r.t.Helper()
	ref, err := name.ParseReference(strings.TrimPrefix(r.endpoint, "http://")+"/"+image, name.Insecure)
	if err != nil {
		r.t.Fatal(err)
	}
	return ref, []remote.Option{
		remote.WithContext(r.ctx), remote.WithAuth(r.auth()), remote.WithTransport(r.client.Transport),
	}
}

// wantImage pulls an image and checks that it is want.
func (r *running) wantImage(ref string, want v1.Image) {
	r.t.Helper()
	where, opts := r.remote(ref)
	got, err := remote.Image(where, opts...)
	if err != nil {
		r.t.Fatal(err)
	}
	wantDigest(r.t, got, want)
	if err := validate.Image(got); err != nil {
		r.t.Error(err)
	}
}

func (r *running) wantIndex(ref string, want v1.ImageIndex) {
	r.t.Helper()
	where, opts := r.remote(ref)
	got, err := remote.Index(where, opts...)
	if err != nil {
		r.t.Fatal(err)
	}
	wantDigest(r.t, got, want)
	if err := validate.Index(got); err != nil {
		r.t.Error(err)
	}
}

func wantDigest(t *testing.T, got, want interface{ Digest() (v1.Hash, error) }) {
	t.Helper()
	g, err := got.Digest()
	if err != nil {
		t.Fatal(err)
	}
	w, err := want.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if g != w {
		t.Errorf("the image is %s, want %s", g, w)
	}
}

func TestLayoutsCanBePulled(t *testing.T) {
	const byName, byRef = "io.containerd.image.name", "org.opencontainers.image.ref.name"
	folder := filepath.Join(t.TempDir(), "Tools")
	image, index := writeLayout(t, folder,
		map[string]string{byName: "docker.io/library/app:1.0", byRef: "1.0"}, map[string]string{byRef: "2.0"})
	unpacked, packed := t.TempDir(), filepath.Join(t.TempDir(), "more.tar")
	other, unnamed := writeLayout(t, unpacked, map[string]string{byRef: "team/other"}, nil)
	writeTar(t, unpacked, packed)

	r := start(t, "--images", folder, "--images", packed)
	r.wantImage("library/app:1.0", image)
	r.wantIndex("tools:2.0", index)
	r.wantImage("team/other:latest", other)
	hash, err := unnamed.Digest()
	if err != nil {
		t.Fatal(err)
	}
	r.wantIndex("more@"+hash.String(), unnamed)
	for _, text := range []string{"library/app:1.0 ", "tools:2.0 ", "more@" + hash.String(), "endpoint: " + r.endpoint} {
		if !strings.Contains(r.greeting, text) {
			t.Errorf("the greeting lacks %q:\n%s", text, r.greeting)
		}
	}
	if status, stderr := r.end(); status != exitDone || stderr != "" {
		t.Errorf("it ended with %d: %q", status, stderr)
	}
}

func TestSingleImageWithoutATagIsLatest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "one")
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	path, err := ocilayout.Write(dir, emptyIndex(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(image); err != nil {
		t.Fatal(err)
	}
	start(t, "--images", dir).wantImage("one:latest", image)
}

func TestSampleIsServedWithoutImages(t *testing.T) {
	r := start(t, "--bandwidth", "1GB")
	where, opts := r.remote("sample/app:1.0")
	index, err := remote.Index(where, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index, validate.Fast); err != nil {
		t.Error(err)
	}
}

// readSample reads a layer of the sample until it ends or breaks, and returns how many bytes it read.
func (r *running) readSample() (int64, error) {
	r.t.Helper()
	where, opts := r.remote("sample/app:1.0")
	image, err := remote.Image(where, opts...)
	if err != nil {
		r.t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		r.t.Fatal(err)
	}
	body, err := layers[0].Compressed()
	if err != nil {
		r.t.Fatal(err)
	}
	defer body.Close()
	return io.Copy(io.Discard, body)
}

func TestFlagsBreakAndThrottle(t *testing.T) {
	r := start(t, "--break-after", "64KiB")
	if size, err := r.readSample(); size != 64<<10 || err == nil {
		t.Errorf("a layer of a million bytes ended after %d of them, and %v", size, err)
	}
	r = start(t, "--throttle-every", "3")
	var throttled int
	for range 9 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.endpoint+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusTooManyRequests {
			throttled++
		}
	}
	if throttled != 3 {
		t.Errorf("%d of 9 requests were throttled, want each third", throttled)
	}
}

func TestTokenLifeFlagLimitsTokens(t *testing.T) {
	r := start(t, "--token-life", "1ns")
	where, opts := r.remote("sample/app:1.0")
	if _, err := remote.Index(where, opts...); err == nil || !strings.Contains(err.Error(), "authorization token has expired") {
		t.Errorf("got %v, want that the token has expired", err)
	}
}

func TestErrorsNameTheirCause(t *testing.T) {
	dir := t.TempDir()
	damaged := filepath.Join(dir, "damaged")
	writeLayout(t, damaged, nil, nil)
	damage(t, damaged)
	notTar := filepath.Join(dir, "image.tar.gz")
	if err := os.WriteFile(notTar, bytes.Repeat([]byte("not a tar "), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args   []string
		status int
		stderr string
	}{
		"help":           {[]string{"--help"}, exitDone, ""},
		"unknown flag":   {[]string{"--nothing"}, exitUsage, "unknown flag"},
		"size":           {[]string{"--bandwidth", "much"}, exitUsage, `"much" is not a size such as 10MB`},
		"address":        {[]string{"--addr", "0.0.0.0:0"}, exitUsage, "redirects need a host that clients can reach"},
		"negative":       {[]string{"--throttle-every=-1"}, exitUsage, "must not be negative"},
		"no such file":   {[]string{"--images", filepath.Join(dir, "none")}, exitFailed, "no such file"},
		"not a layout":   {[]string{"--images", dir}, exitFailed, "it is not an OCI layout"},
		"not a tar":      {[]string{"--images", notTar}, exitFailed, "it is not a tar, or it is compressed"},
		"damaged layout": {[]string{"--images", damaged}, exitFailed, "is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var stderr bytes.Buffer
			status := run(ctx, append([]string{"--addr", "127.0.0.1:0"}, test.args...), io.Discard, &stderr)
			if status != test.status || !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("it ended with %d: %s; want %d: %s", status, stderr.String(), test.status, test.stderr)
			}
		})
	}
}

// damage changes a layer of a layout.
func damage(t *testing.T, dir string) {
	t.Helper()
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range blobs {
		data, err := os.ReadFile(blob)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 50_000 { // a layer, not a manifest
			data[0] ^= 1
			if err := os.WriteFile(blob, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the layout has no layer")
}

func TestAnnotationsNameImages(t *testing.T) {
	for _, test := range []struct{ containerd, ref, repository, tag string }{
		{"docker.io/library/busybox:1.36", "1.36", "library/busybox", "1.36"},
		{"localhost:5000/a/b", "", "a/b", "latest"},
		{"localhost/a", "", "a", "latest"},
		{"team/app:v1", "", "team/app", "v1"},
		{"example.com/app@sha256:0", "", "app", "latest"},
		{"", "team/app:v1", "team/app", "v1"},
		{"", "app:v1", "app", "v1"},
		{"", "v1.2", "fallback", "v1.2"},
		{"", "", "fallback", ""},
	} {
		repository, tag := imageName(map[string]string{
			"io.containerd.image.name": test.containerd, "org.opencontainers.image.ref.name": test.ref,
		}, "fallback")
		if repository != test.repository || tag != test.tag {
			t.Errorf("%q, %q: %s and %q, want %s and %q",
				test.containerd, test.ref, repository, tag, test.repository, test.tag)
		}
	}
}
