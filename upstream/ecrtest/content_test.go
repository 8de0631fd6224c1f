package ecrtest_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

func readAll(t *testing.T, c ecrtest.Content) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != c.Size() {
		t.Fatalf("read %d bytes of a content of %d", len(b), c.Size())
	}
	return b
}

func TestContentIsTheSameAtEveryOffset(t *testing.T) {
	contents := map[string]ecrtest.Content{
		"bytes":    ecrtest.Bytes([]byte("some bytes")),
		"random":   ecrtest.Random(7, 1003),
		"tar":      ecrtest.TarLayer("opt/data", 7, 1003),
		"nothing":  ecrtest.Random(7, 0),
		"tar of 0": ecrtest.TarLayer("opt/empty", 7, 0),
	}
	for name, c := range contents {
		t.Run(name, func(t *testing.T) {
			whole := readAll(t, c)
			rapid.Check(t, func(t *rapid.T) {
				off := rapid.Int64Range(0, c.Size()+10).Draw(t, "off")
				p := make([]byte, rapid.IntRange(0, 300).Draw(t, "n"))
				want := whole[min(off, c.Size()):min(off+int64(len(p)), c.Size())]
				n, err := c.ReadAt(p, off)
				if !bytes.Equal(p[:n], want) {
					t.Fatalf("%d bytes at %d: got %x, want %x", len(p), off, p[:n], want)
				}
				if n < len(p) && err != io.EOF || n > 0 && n == len(p) && err != nil {
					t.Fatalf("%d of %d bytes at %d: error %v", n, len(p), off, err)
				}
			})
		})
	}
}

func TestRandomDependsOnlyOnItsSeed(t *testing.T) {
	a, b := readAll(t, ecrtest.Random(1, 4096)), readAll(t, ecrtest.Random(2, 4096))
	if !bytes.Equal(a, readAll(t, ecrtest.Random(1, 4096))) {
		t.Error("the same seed returned other bytes")
	}
	if !bytes.Equal(a[:100], readAll(t, ecrtest.Random(1, 100))) {
		t.Error("a shorter content of the same seed is not a prefix of the longer one")
	}
	for i := 0; i+8 <= len(b); i += 8 {
		if bytes.Contains(a, b[i:i+8]) {
			t.Fatalf("word %d of one seed is in the content of the other", i/8)
		}
	}
}

func TestTarLayerHoldsOneFile(t *testing.T) {
	for _, size := range []int64{0, 1, 511, 512, 513, 100_000} {
		layer := ecrtest.TarLayer("opt/data", 3, size)
		if want := 512 + (size+511)/512*512 + 1024; layer.Size() != want {
			t.Errorf("a file of %d bytes makes a layer of %d, want %d", size, layer.Size(), want)
		}
		r := tar.NewReader(io.NewSectionReader(layer, 0, layer.Size()))
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != "opt/data" || !bytes.Equal(data, readAll(t, ecrtest.Random(3, size))) {
			t.Errorf("the layer holds %s of %d bytes; its content is not that of Random", h.Name, len(data))
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("after the file: %v, want the end", err)
		}
	}
}

func TestBusyboxIsALayerWithAShell(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "busybox")
	if err := os.WriteFile(binary, []byte("a static binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	layer, diffID, err := ecrtest.Busybox(binary)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(io.NewSectionReader(layer, 0, layer.Size()))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if got := digest.FromBytes(plain); got != diffID {
		t.Errorf("diff ID %s, want %s", diffID, got)
	}
	files := make(map[string]string)
	for r := tar.NewReader(bytes.NewReader(plain)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = h.FileInfo().Mode().String() + " " + h.Linkname + string(data)
	}
	want := map[string]string{
		"bin/busybox": "-rwxr-xr-x a static binary",
		"bin/sh":      "Lrwxrwxrwx busybox",
		"bin/echo":    "Lrwxrwxrwx busybox",
		"etc/passwd":  "-rw-r--r-- root:x:0:0:root:/:/bin/sh\n",
		"tmp/":        "dtrwxrwxrwx ",
	}
	for name := range files {
		if _, ok := want[name]; !ok {
			delete(files, name)
		}
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("the layer's files (-want +got):\n%s", diff)
	}
}

func TestBusyboxReportsAMissingBinary(t *testing.T) {
	_, _, err := ecrtest.Busybox(filepath.Join(t.TempDir(), "none"))
	if !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "reading busybox: ") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkRandom(b *testing.B) {
	c := ecrtest.Random(1, 1<<40)
	buf := make([]byte, 256<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := c.ReadAt(buf, 1<<30); err != nil {
			b.Fatal(err)
		}
	}
}
