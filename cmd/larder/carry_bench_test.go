package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
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
	image, err := random.Image(mib<<20/4, 4)
	if err != nil {
		b.Fatal(err)
	}
	from, err := layout.Write(filepath.Join(dir, "layout"), empty.Index)
	if err == nil {
		err = from.AppendImage(image, layout.WithAnnotations(map[string]string{"io.containerd.image.name": name}))
	}
	if err != nil {
		b.Fatal(err)
	}
	home, bundle := folder("home"), filepath.Join(dir, "bundle.tar")
	larder("import", "--cache-dir", home, filepath.Join(dir, "layout"))
	b.SetBytes(mib << 20)
	var exported, imported, copied time.Duration
	for i := range b.N {
		exported += larder("export", "--cache-dir", home, "-o", bundle, name)
		imported += larder("import", "--cache-dir", folder(fmt.Sprint("site", i)), bundle)
		begin := time.Now()
		if out, err := exec.CommandContext(b.Context(), "cp", bundle, bundle+".copy").CombinedOutput(); err != nil {
			b.Fatalf("cp: %v: %s", err, out)
		}
		if f, err := os.Open(bundle + ".copy"); err != nil || f.Sync() != nil || f.Close() != nil { // larder syncs, too
			b.Fatal(err)
		}
		copied += time.Since(begin)
		for _, path := range []string{bundle, bundle + ".copy", filepath.Join(dir, fmt.Sprint("site", i))} {
			if err := os.RemoveAll(path); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(copied.Seconds()/exported.Seconds(), "export/cp")
	b.ReportMetric(copied.Seconds()/imported.Seconds(), "import/cp")
}
