package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache/cachetest"
)

// signedBundle exports an image of 3 MiB, signed, and returns the file, its content, and a site that requires the
// signature.
func signedBundle(t *testing.T) (file string, content []byte, site *stack) {
	t.Helper()
	s := startStack(t)
	image := s.ecr.add(t, plainImage{Repository: "edge/app", Tag: "1", Seed: 1, Layers: []int64{1 << 10, 3 << 20}})
	requirePull(t, s.newPullers(t, 1), "edge/app", "1", image.Root.Digest)
	s.restartLarder(t) // so that all of it is in the cache
	dir := t.TempDir()
	key, pub := writeKeys(t, dir, "site")
	file = filepath.Join(dir, "bundle.tar")
	output(t, environ(t), s.binary, "export", "--config", s.config, "-o", file, "--sign", key, s.ecr.Host+"/edge/app:1")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	site = newSite(t, s.ecr.Host)
	site.requireSignatures(t, pub)
	return file, content, site
}

// refuses fails the test unless an import of this content fails with an error that has a text, and leaves no image.
func (s *stack) refuses(t *testing.T, content []byte, want string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "wrong.tar")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{file, "-"} {
		cmd := s.command(t, "import", way)
		cmd.Stdin = bytes.NewReader(content)
		said, peak, err := sampled(t, cmd)
		var status *exec.ExitError
		if !errors.As(err, &status) || status.ExitCode() != exitFailed || !strings.Contains(string(said), want) {
			t.Errorf("import %s: %v: %s\nwant %q", way, err, said, want)
		}
		if peak > maxCarryMemory {
			t.Errorf("import %s took %d MiB", way, peak>>20)
		}
	}
	if list := output(t, environ(t), s.binary, "ls", "--config", s.config); strings.Contains(list, "edge") {
		t.Errorf("after the refusal:\n%s", list)
	}
}

// sampled runs a command, and returns its output and the largest resident memory that was seen. The kernel's own sum of
// an ended process begins with the memory of the test.
func sampled(t *testing.T, cmd *exec.Cmd) (said []byte, peak int64, err error) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return out.Bytes(), peak, err
		case <-tick.C:
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
			if command, readErr := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid)); err != nil || readErr != nil || len(command) == 0 {
				continue // it has ended
			}
			_, rest, _ := strings.Cut(string(status), "VmHWM:")
			kib, _, _ := strings.Cut(rest, "kB")
			if n, err := strconv.ParseInt(strings.TrimSpace(kib), 10, 64); err == nil {
				peak = max(peak, n<<10)
			}
		}
	}
}

// maxCarryMemory bounds the resident memory of a command, and of the daemon while it serves one.
const maxCarryMemory = 64 << 20

func TestImportRefusesABundleWithOneWrongBit(t *testing.T) {
	t.Parallel()
	_, content, site := signedBundle(t)
	at := &position{r: bytes.NewReader(content)}
	entries := tar.NewReader(at)
	for {
		h, err := entries.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		altered := bytes.Clone(content)
		altered[at.n+h.Size/2] ^= 1
		site.refuses(t, altered, `entry "`)
		if strings.HasPrefix(h.Name, "blobs/") {
			site.refuses(t, altered, `entry "`+h.Name+`"`)
		}
	}
	site.refuses(t, content[:len(content)/2], "truncated")
	site.refuses(t, content[:len(content)-600], "")
	if got := site.imported(t, writeTemp(t, content)); len(got) != 1 {
		t.Errorf("unaltered: %v", got)
	}
	if err := cachetest.Check(site.cache); err != nil {
		t.Error(err)
	}
}

// position counts what is read.
type position struct {
	r io.Reader
	n int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	return n, err
}

func writeTemp(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "content.tar")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImportRefusesHostileArchives(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	s.stopLarder(t)
	folder := tar.Header{Name: "blobs/", Typeflag: tar.TypeDir, Mode: 0o755}
	for _, c := range []struct {
		name, want string
		content    []byte
	}{
		{"a path that leads up", `entry "../x"`, archive(t, tar.Header{Name: "../x", Typeflag: tar.TypeReg}, "")},
		{"an absolute path", `entry "/etc/passwd"`, archive(t, tar.Header{Name: "/etc/passwd", Typeflag: tar.TypeReg}, "")},
		{"a link", `entry "index.json"`, archive(t, tar.Header{Name: "index.json", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, "")},
		{"a device", `entry "oci-layout"`, archive(t, tar.Header{Name: "oci-layout", Typeflag: tar.TypeBlock}, "")},
		{"100 GB in 1 kB", `entry "blobs/sha256/`, archive(t, tar.Header{
			Name: "blobs/sha256/" + strings.Repeat("0", 64), Typeflag: tar.TypeReg, Size: 100_000_000_000,
		}, "short")},
		{"a large document", `entry "oci-layout"`, archive(t, tar.Header{Name: "oci-layout", Typeflag: tar.TypeReg, Size: 1 << 20}, strings.Repeat(" ", 1<<20))},
		{"too many entries", "there are more than 100000 entries", bytes.Repeat(archive(t, folder, "")[:512], 100_100)},
		{"no tar", "is no bundle or OCI layout", []byte("hello")},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.refuses(t, c.content, c.want)
		})
	}
}

// archive returns a tar that begins with a header and has this content, whatever the size in the header.
func archive(t *testing.T, h tar.Header, content string) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	return append(buf.Bytes(), append([]byte(content), make([]byte, 1024)...)...)
}

func TestCarryingALargeImageTakesLittleMemory(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	image := s.ecr.add(t, plainImage{Repository: "edge/app", Tag: "1", Seed: 1, Layers: []int64{1 << 10, 160 << 20, 80 << 20}})
	requirePull(t, s.newPullers(t, 1), "edge/app", "1", image.Root.Digest)
	s.restartLarder(t) // so that all of it is in the cache
	bundle := filepath.Join(t.TempDir(), "bundle.tar")
	site := newSite(t, s.ecr.Host)
	site.startLarder(t)
	for _, run := range []struct {
		on   *stack
		args []string
	}{{s, []string{"export", "-o", bundle, s.ecr.Host + "/edge/app:1"}}, {site, []string{"import", bundle}}} {
		cmd := run.on.command(t, run.args...)
		out, peak, err := sampled(t, cmd)
		if err != nil {
			t.Fatalf("%v: %v: %s", run.args, err, out)
		}
		if peak > maxCarryMemory {
			t.Errorf("%v took %d MiB", run.args, peak>>20)
		}
		if peak := run.on.larder.memory(t, "VmHWM"); peak > maxCarryMemory {
			t.Errorf("the daemon took %d MiB for %v", peak>>20, run.args)
		}
	}
}
