package bundle_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cache/bundle/bundletest"
)

func TestAlteredBundlesAreRefusedByTheNameOfTheEntry(t *testing.T) {
	f := newFleet()
	plan := f.plan(t, bundle.Options{})
	files := untar(t, f.Pack(t, plan, 1, []byte("signature")))
	at := func(name string) int {
		return slices.IndexFunc(files, func(f file) bool { return f.name == name })
	}
	first, last := at("larder-bundle.json.sigstore.json")+1, len(files)-1
	replace := func(name, content string) func([]file) []file {
		return func(files []file) []file { files[at(name)].content = content; return files }
	}
	for _, c := range []struct {
		name  string
		entry string
		alter func([]file) []file
		want  string
	}{
		{"another index", "index.json", replace("index.json", emptyIndex.content), "does not match"},
		{"another layout", "oci-layout", replace("oci-layout", layoutFile.content+" "), "does not match"},
		{"another manifest.json", "manifest.json", replace("manifest.json", "[]"), "does not match"},
		{"no manifest.json", "manifest.json", func(f []file) []file { return slices.Delete(f, at("manifest.json"), at("manifest.json")+1) }, "missing"},
		{"no index", "index.json", func(f []file) []file { return slices.Delete(f, at("index.json"), at("index.json")+1) }, "missing"},
		{"the index after the blobs", "index.json", func(f []file) []file {
			index := f[at("index.json")]
			return append(slices.Delete(f, at("index.json"), at("index.json")+1), index)
		}, "missing"},
		{"a second index after the blobs", "index.json", func(f []file) []file { return append(f, emptyIndex) }, "twice"},
		{"a blob too many", blob("more").name, func(f []file) []file { return append(f, blob("more")) }, "does not name it"},
		{"no last blob", files[last].name, func(f []file) []file { return f[:last] }, "missing"},
		{"no first blob", files[first].name, func(f []file) []file { return slices.Delete(f, first, first+1) }, "missing"},
		{"no blobs", files[first].name, func(f []file) []file { return f[:first] }, "missing"},
		{"a longer blob", files[last].name, func(f []file) []file { f[last].content += "x"; return f }, "16 bytes, and 15 by"},
		{"a shorter blob", files[first].name, func(f []file) []file { f[first].content = f[first].content[1:]; return f }, "by larder-bundle.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := tarOf(t, c.alter(slices.Clone(files))...)
			err := readAll(t, bytes.NewReader(raw))
			var entry *bundle.EntryError
			if !errors.As(err, &entry) || entry.Name != c.entry || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestBlobOfAnotherPartIsRefused(t *testing.T) {
	f := newFleet()
	for _, c := range "ab" {
		f.images = append(f.images, bundle.Image{
			Name: "ghcr.io/org/large:" + string(c), Digest: f.AddImage("amd64", strings.Repeat(string(c), 90<<10)).Digest,
		})
	}
	plan := f.plan(t, bundle.Options{PartSize: 200 << 10})
	first, second := untar(t, f.Pack(t, plan, 1, nil)), untar(t, f.Pack(t, plan, 2, nil))
	stray := second[len(second)-1]
	err := read(bytes.NewReader(tarOf(t, append(first, stray)...)))
	var entry *bundle.EntryError
	if !errors.As(err, &entry) || entry.Name != stray.name || !strings.Contains(err.Error(), "belongs to part 2") {
		t.Errorf("got %v", err)
	}
}

func TestTruncatedBundleIsRefusedByTheNameOfTheEntry(t *testing.T) {
	f := newFleet()
	raw := f.Pack(t, f.plan(t, bundle.Options{}), 1, nil)
	for n := 512; n < len(raw); n += 113 {
		for _, n := range []int{n, n &^ 511} {
			for how, in := range map[string]io.Reader{"a stream": bytes.NewBuffer(raw[:n]), "a file": bytes.NewReader(raw[:n])} {
				var entry *bundle.EntryError
				if err := read(in); !errors.As(err, &entry) || !strings.Contains(err.Error(), "truncated") {
					t.Errorf("%s of %d bytes: %v", how, n, err)
				}
			}
		}
	}
}

// What is not read is skipped, on a file by seeking.
func TestSkippedBlobsAreNotRead(t *testing.T) {
	f := newFleet()
	large := strings.Repeat("x", 8<<20)
	f.images = append(f.images, bundle.Image{Name: "ghcr.io/org/large:1", Digest: f.AddImage("amd64", large).Digest})
	raw := f.Pack(t, f.plan(t, bundle.Options{}), 1, nil)
	counted := &countingFile{Reader: bytes.NewReader(raw)}
	r, err := bundle.NewReader(counted)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for {
		b, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, string(b.Digest))
	}
	if len(names) != len(f.Store) {
		t.Errorf("%d blobs of %d", len(names), len(f.Store))
	}
	if counted.read > 100<<10 {
		t.Errorf("%d bytes were read", counted.read)
	}
	if _, err := r.Layout(); err != nil {
		t.Error(err)
	}
}

type countingFile struct {
	*bytes.Reader
	read int
}

func (c *countingFile) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += n
	return n, err
}

func TestPartOfABlobMayBeRead(t *testing.T) {
	f := newFleet()
	raw := f.Pack(t, f.plan(t, bundle.Options{}), 1, nil)
	for _, in := range []io.Reader{bytes.NewBuffer(raw), bytes.NewReader(raw)} {
		r, err := bundle.NewReader(in)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for {
			b, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, b.Size/2)
			if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, f.Store[b.Digest][:len(got)]) {
				t.Errorf("blob %s: %q, %v", b.Digest, got, err)
			}
			n++
		}
		if n != len(f.Store) {
			t.Errorf("%d blobs", n)
		}
	}
}

func TestCompressedLayoutsAreRead(t *testing.T) {
	f := newFleet()
	zipped, zstandard := compressed(t, f.Pack(t, f.plan(t, bundle.Options{}), 1, nil))
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, zstandard...) // as pzstd writes
	for form, raw := range map[string][]byte{"gzip": zipped, "zstd": zstandard, "pzstd": skippable} {
		site := make(bundletest.Store)
		unpack(t, site, raw)
		if diff := cmp.Diff(f.Store, site); diff != "" {
			t.Errorf("%s: blobs differ (-packed +unpacked):\n%s", form, diff)
		}
	}
}
