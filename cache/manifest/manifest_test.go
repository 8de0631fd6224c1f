package manifest_test

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/manifest"
)

func TestCheckRefusesInvalidManifests(t *testing.T) {
	const index, image = ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest
	for _, c := range []struct {
		name, mediaType, raw string
	}{
		{"invalid JSON", image, `{`},
		{"another type", image, `{"mediaType": "` + index + `", "manifests": []}`},
		{"no type", "", `{"layers": []}`},
		{"an index with layers", index, `{"manifests": [], "layers": []}`},
		{"an index with a config", index, `{"manifests": [], "config": {"digest": "` + string(digest.FromString("")) + `"}}`},
		{"an invalid digest", image, `{"layers": [{"digest": "sha256:../../etc/passwd"}]}`},
		{"a layer without a digest", image, `{"layers": [{"size": 5}]}`},
		{"a foreign layer without a digest", image, `{"layers": [{"urls": ["https://example.com"]}]}`},
		{"a million empty layers", image, `{"mediaType": "` + image + `", "layers": [` + strings.Repeat("{},", 1_000_000) + `{}]}`},
		{"an object in place of layers", image, `{"mediaType": "` + image + `", "layers": {}}`},
		{"null", image, `null`},
		{"an array", image, `[]`},
		{"nothing of its type", image, `{"mediaType": "` + image + `"}`},
		{"not what its type has", index, `{"mediaType": "` + index + `", "layers": []}`},
		{"a type that is of no manifest", "text/html", `{"mediaType": "text/html", "layers": []}`},
		{"an index by its Content-Type", index, `{"config": {"digest": "` + string(digest.FromString("")) + `"}, "layers": []}`},
		{"layers twice", image, `{"mediaType": "` + image + `", "layers": [], "layers": []}`},
		{"layers in two cases", image, `{"mediaType": "` + image + `", "layers": [], "Layers": []}`},
		{"layers in another case", image, `{"mediaType": "` + image + `", "config": {"digest": "` + string(digest.FromString("")) + `"}, "Layers": []}`},
		{"a digest twice", image, `{"mediaType": "` + image + `", "layers": [{"digest": "` + string(digest.FromString("a")) + `", "digest": "` + string(digest.FromString("b")) + `"}]}`},
		{"null as a layer", image, `{"mediaType": "` + image + `", "layers": [null]}`},
		{"two documents", image, `{"mediaType": "` + image + `", "layers": []} {}`},
		{"an image with the blobs of an artifact", image, `{"mediaType": "` + image + `", "layers": [], "blobs": []}`},
		{"schema 1", "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion": 1, "fsLayers": [], "history": []}`},
		{"too large", image, `{"layers": []` + strings.Repeat(" ", manifest.MaxSize) + `}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := manifest.Manifest{Digest: digest.FromString(c.raw), MediaType: c.mediaType, Raw: []byte(c.raw)}
			if _, err := m.Check(); !errors.Is(err, manifest.ErrRefused) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// What is refused may have 4 MiB, and must not take fifty times that in memory.
func TestCheckOfEmptyElementsTakesLittleMemory(t *testing.T) {
	for _, element := range []string{"{}", `{"urls":[""]}`, "null"} {
		raw := []byte(`{"mediaType": "` + ocispec.MediaTypeImageIndex + `", "manifests": [` + strings.Repeat(element+",", 250_000) + element + `]}`)
		m := manifest.Manifest{Digest: digest.FromBytes(raw), Raw: raw}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := m.Check()
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, manifest.ErrRefused) || used > 5*uint64(len(raw)) {
			t.Errorf("%s: %d bytes were used for %d: %v", element, used, len(raw), err)
		}
	}
}

func TestCheckRefusesContentOfAnotherDigest(t *testing.T) {
	m := manifest.Manifest{Digest: digest.FromString("a"), MediaType: ocispec.MediaTypeImageManifest, Raw: []byte(`{"layers": []}`)}
	if _, err := m.Check(); !errors.Is(err, manifest.ErrMismatch) {
		t.Errorf("got %v", err)
	}
}

// manyLayers is an image with this many layers.
func manyLayers(n int) []byte {
	raw := []byte(`{"mediaType": "` + ocispec.MediaTypeImageManifest + `", "layers": [`)
	for i := range n {
		if i > 0 {
			raw = append(raw, ',')
		}
		raw = fmt.Appendf(raw, `{"digest":"sha256:%064x","size":1}`, i)
	}
	return append(raw, "]}"...)
}

func TestCheckTellsThatAManifestNamesTooMuch(t *testing.T) {
	for n, want := range map[int]error{
		manifest.MaxChildren:     nil,
		manifest.MaxChildren + 1: manifest.ErrTooMany,
		43_000:                   manifest.ErrTooMany,
	} {
		raw := manyLayers(n)
		m := manifest.Manifest{Digest: digest.FromBytes(raw), Raw: raw}
		parts, err := m.Check()
		if !errors.Is(err, want) || err == nil && len(parts.Children) != n {
			t.Errorf("%d layers: %d children, %v", n, len(parts.Children), err)
		}
		if m.MediaType != ocispec.MediaTypeImageManifest || m.Size != int64(len(raw)) {
			t.Errorf("%d layers: %s of %d bytes", n, m.MediaType, m.Size)
		}
		if mediaType, err := manifest.TypeOf(raw); err != nil || mediaType != ocispec.MediaTypeImageManifest {
			t.Errorf("%d layers: %s, %v", n, mediaType, err)
		}
	}
}

// Reading a document used to take ten times its size.
func TestCheckTakesLittleMemory(t *testing.T) {
	raw := manyLayers(43_000)
	m := manifest.Manifest{Digest: digest.FromBytes(raw), Raw: raw}
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	var most uint64
	ended := make(chan error, 1)
	go func() {
		_, err := m.Check()
		ended <- err
	}()
	for {
		select {
		case err := <-ended:
			if grown := int64(most) - int64(before.HeapAlloc); !errors.Is(err, manifest.ErrTooMany) || grown > int64(len(raw)) {
				t.Errorf("a manifest of %d bytes took %d more: %v", len(raw), grown, err)
			}
			return
		default:
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"layers":[]}`))
	f.Add([]byte(`{"manifests": [{"digest": "sha256:x"}], "mediaType": "y"}`))
	f.Add([]byte(`{"layers": [{"digest": "sha512:00", "urls": ["https://example"]}], "config": null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := manifest.Manifest{Digest: digest.FromBytes(raw), MediaType: ocispec.MediaTypeImageManifest, Raw: raw}
		parts, err := m.Check()
		for _, child := range parts.Children {
			if err := child.Digest.Validate(); err != nil {
				t.Errorf("a child is %q: %v", child.Digest, err)
			}
		}
		if err == nil && m.Size != int64(len(raw)) {
			t.Errorf("size %d", m.Size)
		}
	})
}
