package bundle_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cache/bundle/bundletest"
)

// nested is a list in a list, n deep.
func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func TestLayoutsWithStrangeDocumentsAreRefused(t *testing.T) {
	a := digest.FromString("a").String()
	index := func(content string) []file { return []file{layoutFile, {name: "index.json", content: content}} }
	layout := func(content string) []file { return []file{{name: "oci-layout", content: content}, emptyIndex} }
	docker := func(content string) []file {
		return []file{layoutFile, emptyIndex, {name: "manifest.json", content: content}}
	}
	for _, c := range []struct {
		name  string
		files []file
		want  string
	}{
		{"an index that nests deeply", index(`{"manifests":` + nested(1_000_000) + `}`), "exceeded max depth"},
		{"an index with an unknown field that nests deeply", index(`{"x":` + nested(1_000_000) + `}`), "exceeded max depth"},
		{"an index that is a list", index(`[]`), "cannot unmarshal"},
		{"an index that is a number", index(`1e999`), "index.json"},
		{"two documents in one index", index(`{"manifests":[]}{"manifests":[]}`), "after top-level value"},
		{"an index with zeros behind it", index("{\"manifests\":[]}\x00\x00"), "invalid character"},
		{"an index with a mark of its encoding", index("\xef\xbb\xbf{}"), "invalid character"},
		{"an index in UTF-16", index("{\x00}\x00"), "invalid character"},
		{"an empty index", index(""), "index.json"},
		{"a size beyond 64 bits", index(`{"manifests":[{"digest":"` + a + `","size":9223372036854775808}]}`), "index.json"},
		{"a size with a fraction", index(`{"manifests":[{"digest":"` + a + `","size":1.5}]}`), "index.json"},
		{"a negative size", index(`{"manifests":[{"digest":"` + a + `","size":-1}]}`), "-1 bytes"},
		{"annotations that are a list", index(`{"manifests":[{"digest":"` + a + `","annotations":[]}]}`), "annotations"},
		{"a name with an escape of a terminal", index(`{"manifests":[{"digest":"` + a + `","annotations":{"io.containerd.image.name":"\u001b[2Japp:1"}}]}`), "spaces, or characters"},
		{"a name that is written from right to left", index(`{"manifests":[{"digest":"` + a + `","annotations":{"io.containerd.image.name":"\u202eapp:1"}}]}`), "spaces, or characters"},
		{"a name of a megabyte", index(`{"manifests":[{"digest":"` + a + `","annotations":{"io.containerd.image.name":"` + strings.Repeat("n", 1<<20) + `"}}]}`), "more than 512"},
		{"a digest that is a path", index(`{"manifests":[{"digest":"sha256:../../../../etc/passwd"}]}`), "no digest"},
		{"a digest of a megabyte", index(`{"manifests":[{"digest":"sha256:` + strings.Repeat("a", 1<<20) + `"}]}`), "no digest"},
		{"a digest with a new line", index(`{"manifests":[{"digest":"` + a + `\n"}]}`), "no digest"},
		{"a layout whose version is a number", layout(`{"imageLayoutVersion":1}`), "oci-layout"},
		{"a layout without a version", layout(`{}`), "not supported"},
		{"a layout of version 10", layout(`{"imageLayoutVersion":"10.0.0"}`), "not supported"},
		{"a layout that is null", layout(`null`), "not supported"},
		{"a manifest.json that is an object", docker(`{}`), "manifest.json"},
		{"a manifest.json that nests deeply", docker(nested(1_000_000)), "manifest.json"},
		{"a config of Docker that leads up", docker(`[{"Config":"../../etc/passwd","RepoTags":["a:1"],"Layers":[]}]`), "manifest.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := readAll(t, bytes.NewReader(tarOf(t, c.files...)))
			var entry *bundle.EntryError
			if !errors.As(err, &entry) || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 2000 {
				t.Errorf("got %.300v", err)
			}
		})
	}
}

func TestDescriptionsWithStrangeValuesAreRefused(t *testing.T) {
	files := `"files":{"oci-layout":"` + digest.FromString("a").String() + `","index.json":"` + digest.FromString("b").String() + `"}`
	for _, c := range []struct{ name, content, want string }{
		{"null", `null`, "no version"},
		{"a version that is a text", `{"version":"1"}`, "Version of type int"},
		{"a version with a fraction", `{"version":1.5}`, "Version of type int"},
		{"a negative version", `{"version":-1}`, "no version"},
		{"a version beyond 64 bits", `{"version":18446744073709551617}`, "Version of type int"},
		{"a later version that comes second", `{"version":1,"version":2}`, "newer Larder"},
		{"parts beyond 64 bits", `{"version":1,"parts":1e30}`, "parts"},
		{"negative parts", `{"version":1,"parts":-1}`, "-1 parts"},
		{"files that are a list", `{"version":1,"parts":1,"files":[]}`, "files"},
		{"files that are null", `{"version":1,"parts":1,"files":null}`, "oci-layout"},
		{"a blob that is null", `{"version":1,"parts":1,` + files + `,"blobs":[null]}`, "no digest"},
		{"a blob in capitals", `{"version":1,"parts":1,` + files + `,"blobs":[{"digest":"SHA256:` + strings.Repeat("A", 64) + `"}]}`, "no digest"},
		{"an image that is a text", `{"version":1,"parts":1,` + files + `,"images":["app:1"]}`, "images"},
		{"a time that is none", `{"version":1,"parts":1,` + files + `,"images":[{"name":"a","confirmed":"yesterday"}]}`, "parsing time"},
		{"deep nesting", `{"version":1,"x":` + nested(1_000_000) + `}`, "exceeded max depth"},
		{"another document behind it", `{"version":1}{"version":1}`, "after top-level value"},
	} {
		if _, err := bundle.ParseDescription([]byte(c.content)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestInventoriesWithStrangeValuesAreRefused(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"null", `null`, "JSON object"},
		{"a number", `7`, "JSON object"},
		{"deep nesting", `{"version":1,"x":` + nested(1_000_000), "exceeded max depth"},
		{"digests that are an object", `{"version":1,"digests":{}}`, "not an array"},
		{"digests that are numbers", `{"version":1,"digests":[7]}`, "digests"},
		{"digests that are lists", `{"version":1,"digests":[[]]}`, "digests"},
		{"a version that is a list", `{"version":[1]}`, "version"},
		{"a later version that comes second", `{"version":1,"version":2}`, "newer Larder"},
		{"an image with an escape of a terminal", `{"version":1,"images":[{"name":"\u001b[2J","digest":"x"}]}`, "spaces, or characters"},
		{"no end", `{"version":1`, "EOF"},
		{"a key without a value", `{"version":}`, "version"},
		{"sha384", `{"version":1,"digests":["` + digest.SHA384.FromString("").String() + `"]}`, "sha384"},
	} {
		if _, err := bundle.ReadInventory(strings.NewReader(c.content)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// What is compressed may be damaged at its end, be compressed twice, or go on.
func TestStrangeCompressionIsRefused(t *testing.T) {
	good := tarOf(t, layoutFile, emptyIndex, blob("content"))
	zipped, zstandard := compressed(t, good)
	twice, _ := compressed(t, zipped)
	flipped := bytes.Clone(zipped)
	flipped[len(flipped)-6] ^= 1 // of the checksum
	var named bytes.Buffer
	w := gzip.NewWriter(&named)
	w.Name, w.Comment = strings.Repeat("n", 100_000), strings.Repeat("c", 100_000)
	if err := errors.Join(func() error { _, err := w.Write(good); return err }(), w.Close()); err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"gzip in gzip":                           twice,
		"half a gzip":                            zipped[:len(zipped)/2],
		"half a zstd":                            zstandard[:len(zstandard)/2],
		"a gzip with a name of 100 kB":           named.Bytes(),
		"a header of gzip alone":                 zipped[:10],
		"a header of zstd alone":                 zstandard[:4],
		"a skippable frame of 4 GiB":             append([]byte{0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff}, good...),
		"a frame of zstd with reserved bits":     append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x08}, good...),
		"a frame of zstd with a dictionary":      append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x03, 1, 2, 3, 4, 5}, good...),
		"a tar in which the first header is cut": good[:600],
		"a tar whose checksum is wrong":          append([]byte("x"), good[1:]...),
	} {
		if err := readAll(t, bytes.NewBuffer(raw)); err == nil || len(err.Error()) > 1000 {
			t.Errorf("%s: %.300v", name, err)
		}
	}
}

// An index may name one manifest many times, and each name stands for much work.
func TestIndexThatRepeatsAManifestIsReadOnce(t *testing.T) {
	s := make(bundletest.Store)
	image := s.AddImage("amd64", "layer")
	entries := make([]ocispec.Descriptor, 5000)
	for i := range entries {
		entries[i] = image
	}
	root := s.AddIndex(entries...)
	layout := namedLayout(t, s, ocispec.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size})
	reads := 0
	read := func(d digest.Digest) ([]byte, error) {
		reads++
		return s.Manifest(d)
	}
	for tree, err := range layout.Resolve(read, s.Has) {
		if err != nil || len(tree.Missing) > 0 {
			t.Errorf("%v, %v", tree.Missing, err)
		}
	}
	if reads > 10 {
		t.Errorf("manifests were read %d times", reads)
	}
}

// namedLayout returns a layout of another tool that has a store's blobs and names some.
func namedLayout(t *testing.T, s bundletest.Store, named ...ocispec.Descriptor) *bundle.Layout {
	t.Helper()
	for i := range named {
		named[i].Annotations = map[string]string{"io.containerd.image.name": fmt.Sprintf("registry.test/app:%d", i)}
	}
	raw, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: named})
	if err != nil {
		t.Fatal(err)
	}
	l, err := bundle.Documents{"oci-layout": []byte(layoutFile.content), "index.json": raw}.Layout(nil, slices.Collect(maps.Keys(s)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}
