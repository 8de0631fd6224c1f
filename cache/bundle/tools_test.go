package bundle_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cache/bundle/bundletest"
	"github.com/larder-registry/larder/deploy/deploytest"
)

// skopeo runs skopeo in a folder, or skips the test without it.
func skopeo(t *testing.T, dir string, args ...string) {
	t.Helper()
	path := deploytest.Require(t, "skopeo")
	cmd := exec.CommandContext(t.Context(), path, append([]string{"--insecure-policy", "--tmpdir", t.TempDir()}, args...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("skopeo %v: %v: %s", args, err, out)
	}
}

// openLayout reads the layout in a file, adds its blobs to a store and returns its images.
func openLayout(t *testing.T, to bundletest.Store, path string) []bundle.Tree {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, layout := unpack(t, to, raw)
	return trees(t, layout, to)
}

func TestSkopeoReadsAnImageOfABundleByItsName(t *testing.T) {
	f, dir := newFleet(), t.TempDir()
	raw := f.Pack(t, f.plan(t, bundle.Options{}), 1, []byte("signature"))
	if err := os.WriteFile(filepath.Join(dir, "bundle.tar"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]digest.Digest{
		"docker.io/library/redis:7": f.index.Digest, "ghcr.io/org/app:1": f.app.Digest,
		"docker.io/library/redis@" + string(f.amd64.Digest): f.amd64.Digest,
	} {
		out := filepath.Join(dir, want.Encoded())
		skopeo(t, dir, "copy", "--all", "oci-archive:bundle.tar:"+name, "dir:"+out)
		manifest, err := os.ReadFile(filepath.Join(out, "manifest.json"))
		if err != nil || digest.FromBytes(manifest) != want {
			t.Errorf("%s is %s: %v", name, digest.FromBytes(manifest), err)
		}
	}
}

func TestLayoutsOfSkopeoAreRead(t *testing.T) {
	f, dir := newFleet(), t.TempDir()
	raw := f.Pack(t, f.plan(t, bundle.Options{}), 1, nil)
	if err := os.WriteFile(filepath.Join(dir, "bundle.tar"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	const name = "ghcr.io/org/app:1"
	skopeo(t, dir, "copy", "--preserve-digests", "oci-archive:bundle.tar:"+name, "oci-archive:archive.tar:"+name)
	skopeo(t, dir, "copy", "--preserve-digests", "oci-archive:bundle.tar:"+name, "oci:folder:"+name)
	got := openLayout(t, make(bundletest.Store), filepath.Join(dir, "archive.tar"))

	site := make(bundletest.Store)
	_, layout, err := readFolder(t, site, filepath.Join(dir, "folder"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tree := range append(got, trees(t, layout, site)...) {
		if tree.Name != name || tree.Digest != f.app.Digest || len(tree.Missing) > 0 {
			t.Errorf("it has %v, and %v are missing", tree.Image, tree.Missing)
		}
	}
	if len(got) != 1 || len(layout.Images) != 1 {
		t.Errorf("%d and %d images", len(got), len(layout.Images))
	}
}

// The command of the refusal is one that works.
func TestDockerArchiveIsConvertedByTheAdvice(t *testing.T) {
	f, dir := newFleet(), t.TempDir()
	raw := f.Pack(t, f.plan(t, bundle.Options{}), 1, nil)
	if err := os.WriteFile(filepath.Join(dir, "bundle.tar"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	const name = "ghcr.io/org/app:1"
	skopeo(t, dir, "copy", "oci-archive:bundle.tar:"+name, "docker-archive:old.tar:"+name)
	old, err := os.ReadFile(filepath.Join(dir, "old.tar"))
	if err != nil {
		t.Fatal(err)
	}
	refusal := read(bytes.NewReader(old))
	if refusal == nil {
		t.Fatal("a Docker archive is read")
	}
	_, advice, _ := strings.Cut(refusal.Error(), "skopeo ")
	advice, _, _ = strings.Cut(advice, " (")
	advice = strings.NewReplacer("FILE", "old.tar", "NEW", "new.tar", "NAME", name).Replace(advice)
	skopeo(t, dir, strings.Fields(advice)...)
	got := openLayout(t, make(bundletest.Store), filepath.Join(dir, "new.tar"))
	if len(got) != 1 || got[0].Name != name || len(got[0].Missing) > 0 {
		t.Errorf("after %q: %v", advice, got)
	}
}
