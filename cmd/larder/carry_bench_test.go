package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// BenchmarkCarry exports an image, imports it at a site, and copies the bundle with cp on the same disk. It reports how
// many times as fast as cp each is. CARRY_MIB sets the image's size in MiB.
func BenchmarkCarry(b *testing.B) {
	if _, err := exec.LookPath("cp"); err != nil {
		b.Skip("cp is not installed")
	}
	mib, err := strconv.ParseInt(cmp.Or(os.Getenv("CARRY_MIB"), "16"), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	const name = "registry.example.com/edge/app:1"
	dir := b.TempDir()
	larder := func(args ...string) time.Duration {
		b.Helper()
		var stderr bytes.Buffer
		begin := time.Now()
		if status := run(b.Context(), args, []string{"LARDER_CONFIG=" + filepath.Join(dir, "larder.yaml")}, nil, &stderr, &stderr); status != exitDone {
			b.Fatalf("larder %v: exit status %d: %s", args, status, &stderr)
		}
		return time.Since(begin)
	}
	folder := func(i string) string { // a cache folder in which a daemon was
		b.Helper()
		folder := filepath.Join(dir, i)
		if err := os.MkdirAll(folder, 0o750); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "larder.lock"), nil, 0o640); err != nil {
			b.Fatal(err)
		}
		return folder
	}
	if err := os.WriteFile(filepath.Join(dir, "larder.yaml"), []byte("upstreams: [{host: registry.example.com}]\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	layoutOfLayers(b, filepath.Join(dir, "layout"), name, 4, mib<<20/4)
	home, bundle := folder("home"), filepath.Join(dir, "bundle.tar")
	larder("import", "--cache-dir", home, filepath.Join(dir, "layout"))
	if err := os.RemoveAll(filepath.Join(dir, "layout")); err != nil { // a large image fills the disk
		b.Fatal(err)
	}
	b.SetBytes(mib << 20)
	remove := func(path string) {
		b.Helper()
		if err := os.RemoveAll(path); err != nil {
			b.Fatal(err)
		}
	}
	var exported, imported, copied time.Duration
	for i := range b.N {
		site := folder(fmt.Sprint("site", i))
		exported += larder("export", "--cache-dir", home, "-o", bundle, name)
		copied += copyFile(b, bundle, bundle+".copy") / 2
		remove(bundle + ".copy")
		imported += larder("import", "--cache-dir", site, bundle)
		remove(site)                                      // at most three copies of the image are on the disk at once
		copied += copyFile(b, bundle, bundle+".copy") / 2 // again, as a disk is not as fast all the time
		remove(bundle)
		remove(bundle + ".copy")
	}
	b.ReportMetric(copied.Seconds()/float64(b.N), "cp-s/op")
	b.ReportMetric(copied.Seconds()/exported.Seconds(), "export/cp")
	b.ReportMetric(copied.Seconds()/imported.Seconds(), "import/cp")
}

// copyFile copies a file with cp, until it is durable as the files of Larder are, and returns how long that took.
func copyFile(b *testing.B, from, to string) time.Duration {
	b.Helper()
	begin := time.Now()
	if out, err := exec.CommandContext(b.Context(), "cp", from, to).CombinedOutput(); err != nil {
		b.Fatalf("cp: %v: %s", err, out)
	}
	f, err := os.Open(to)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(begin)
}

// layoutOfLayers writes an OCI layout with an image of so many layers, which cannot be compressed. It takes no memory for
// them.
func layoutOfLayers(tb testing.TB, dir, image string, layers int, size int64) {
	tb.Helper()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o750); err != nil {
		tb.Fatal(err)
	}
	write := func(mediaType string, content io.Reader) ocispec.Descriptor {
		tb.Helper()
		f, err := os.Create(filepath.Join(blobs, "new"))
		if err != nil {
			tb.Fatal(err)
		}
		sum := digest.SHA256.Digester()
		n, err := io.Copy(io.MultiWriter(f, sum.Hash()), content)
		if err := errors.Join(err, f.Close(), os.Rename(f.Name(), filepath.Join(blobs, sum.Digest().Encoded()))); err != nil {
			tb.Fatal(err)
		}
		return ocispec.Descriptor{MediaType: mediaType, Digest: sum.Digest(), Size: n}
	}
	document := func(mediaType string, v any) ocispec.Descriptor {
		tb.Helper()
		raw, err := json.Marshal(v)
		if err != nil {
			tb.Fatal(err)
		}
		return write(mediaType, bytes.NewReader(raw))
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	m.Config = document(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}})
	for i := range layers {
		m.Layers = append(m.Layers, write(ocispec.MediaTypeImageLayer, io.LimitReader(rand.NewChaCha8([32]byte{byte(i)}), size)))
	}
	root := document(ocispec.MediaTypeImageManifest, m)
	root.Annotations = map[string]string{"io.containerd.image.name": image}
	index, err := json.Marshal(ocispec.Index{Versioned: m.Versioned, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{root}})
	if err != nil {
		tb.Fatal(err)
	}
	for file, content := range map[string]string{"index.json": string(index), "oci-layout": `{"imageLayoutVersion": "1.0.0"}`} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}
