package bundle_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cache/bundle/bundletest"
)

// redescribed returns a bundle of one part whose description was altered, with everything
// else as the description has it then. Nobody needs a key for that where none is required.
func redescribed(t *testing.T, raw []byte, alter func(*bundle.Description)) []byte {
	t.Helper()
	files := untar(t, raw)
	i := slices.IndexFunc(files, func(f file) bool { return f.name == "larder-bundle.json" })
	d, err := bundle.ParseDescription([]byte(files[i].content))
	if err != nil {
		t.Fatal(err)
	}
	alter(d)
	changed, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	files[i].content = string(changed)
	return tarOf(t, slices.DeleteFunc(files, func(f file) bool {
		hex, isBlob := strings.CutPrefix(f.name, "blobs/sha256/")
		if !isBlob {
			return false
		}
		_, ok := d.Blob(digest.Digest("sha256:" + hex))
		return !ok
	})...)
}

func withoutBlob(d *bundle.Description, of digest.Digest) {
	d.Blobs = slices.DeleteFunc(d.Blobs, func(b bundle.Blob) bool { return b.Digest == of })
}

func TestBundlesThatContradictTheirManifestsAreRefused(t *testing.T) {
	f := newFleet()
	const redis, app = "docker.io/library/redis:7", "ghcr.io/org/app:1"
	packed := f.Pack(t, f.plan(t, bundle.Options{Include: onlyAMD64}), 1, nil)
	base := digest.FromString("base")
	for _, c := range []struct {
		name  string
		image string
		alter func(*bundle.Description)
		want  string
	}{
		{"a layer that is not promised", redis, func(d *bundle.Description) { withoutBlob(d, base) }, "does not"},
		{"a layer of another size", redis, func(d *bundle.Description) {
			withoutBlob(d, base)
			d.Present = []bundle.Blob{{Digest: base, Size: 99}}
		}, "4 bytes, and larder-bundle.json says 99"},
		{"a platform that is not left out", redis, func(d *bundle.Description) { d.Images[0].LeftOut = nil }, "larder-bundle.json does not"},
		{"a platform that is not mentioned", redis, func(d *bundle.Description) { d.Images[0].Platforms = nil }, "other platforms"},
		{"another type", app, func(d *bundle.Description) { d.Images[2].MediaType = ocispec.MediaTypeImageIndex }, "of type"},
		{"another subject", app, func(d *bundle.Description) { d.Images[2].Referrers[0].Subject = f.index.Digest }, "other things"},
		{"another type of artifact", app, func(d *bundle.Description) { d.Images[2].Referrers[0].ArtifactType = "text/plain" }, "other things"},
		{"another size of a referrer", app, func(d *bundle.Description) { d.Images[2].Referrers[0].Size++ }, "a manifest says"},
	} {
		t.Run(c.name, func(t *testing.T) {
			site := make(bundletest.Store)
			_, layout := unpack(t, site, redescribed(t, packed, c.alter))
			site[base] = f.Store[base] // a layer of another image is no proof
			refused := false
			for tree, err := range layout.Resolve(site.Manifest, site.Has) {
				if tree.Name == c.image {
					refused = err != nil && strings.Contains(err.Error(), c.want) && strings.Contains(err.Error(), c.image)
					if !refused {
						t.Errorf("missing %v, %v", tree.Missing, err)
					}
				}
			}
			if !refused {
				t.Error("the image is not refused")
			}
		})
	}
}

func TestManifestsThatAreDamagedAreRefused(t *testing.T) {
	f := newFleet()
	site := make(bundletest.Store)
	_, layout := unpack(t, site, f.Pack(t, f.plan(t, bundle.Options{}), 1, nil))
	site[f.app.Digest] = append(bytes.Clone(site[f.app.Digest]), ' ')
	for tree, err := range layout.Resolve(site.Manifest, site.Has) {
		if damaged := tree.Name == "ghcr.io/org/app:1"; damaged != (err != nil) {
			t.Errorf("%s: %v", tree.Name, err)
		}
	}
}

func TestImagesAreKnownOnlyAtTheEnd(t *testing.T) {
	f := newFleet()
	r, err := bundle.NewReader(bytes.NewReader(f.Pack(t, f.plan(t, bundle.Options{}), 1, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Layout(); err == nil {
		t.Error("the images are told before the last blob")
	}
}

// saved is a layout as "docker save" makes it, with a manifest.json.
func saved(t *testing.T, s bundletest.Store, named map[string]ocispec.Descriptor, docker string) []byte {
	t.Helper()
	return tarOf(t, append(untar(t, layoutOf(t, s, named)), file{name: "manifest.json", content: docker}, file{name: "repositories", content: "{}"})...)
}

// paths returns the config and the layers of an image, as manifest.json names them.
func paths(t *testing.T, s bundletest.Store, image ocispec.Descriptor) (config string, layers []string) {
	t.Helper()
	var m ocispec.Manifest
	if err := json.Unmarshal(s[image.Digest], &m); err != nil {
		t.Fatal(err)
	}
	for _, layer := range m.Layers {
		layers = append(layers, blobPath(layer.Digest))
	}
	return blobPath(m.Config.Digest), layers
}

func TestManifestsThatContradictDockersAreRefused(t *testing.T) {
	s := make(bundletest.Store)
	app, other := s.AddImage("amd64", "base", "app"), s.AddImage("amd64", "other")
	config, layers := paths(t, s, app)
	otherConfig, otherLayers := paths(t, s, other)
	const name = "docker.io/library/app:1"
	document := func(name, config string, layers []string) string {
		raw, err := json.Marshal([]map[string]any{{"Config": config, "RepoTags": []string{name}, "Layers": layers}})
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	for _, c := range []struct {
		name, docker, want string // an empty want is accepted
	}{
		{"the same", document("app:1", config, layers), ""},
		{"another image too", strings.TrimSuffix(document("app:1", config, layers), "]") + "," + document("ghcr.io/x/app:1", otherConfig, otherLayers)[1:], ""},
		{"layers in another order", document("app:1", config, []string{layers[1], layers[0]}), "different layers"},
		{"a layer less", document("app:1", config, layers[:1]), "different layers"},
		{"a layer more", document("app:1", config, append(slices.Clone(layers), otherLayers[0])), "different layers"},
		{"another layer", document("app:1", config, []string{layers[0], otherLayers[0]}), "different layers"},
		{"another image by the short name", document("app:1", otherConfig, otherLayers), "another image"},
		{"another image by the name", document(name, otherConfig, otherLayers), "another image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			site := make(bundletest.Store)
			_, layout := unpack(t, site, saved(t, s, map[string]ocispec.Descriptor{name: app}, c.docker))
			if layout.Rebuilt {
				t.Error("the manifests are said to be made by Docker")
			}
			for _, err := range layout.Resolve(site.Manifest, site.Has) {
				if ok := err == nil; ok != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	twice := strings.TrimSuffix(document("app:1", config, layers), "]") + "," + document("app:2", config, layers[:1])[1:]
	if err := read(bytes.NewReader(saved(t, s, nil, twice))); err == nil || !strings.Contains(err.Error(), "two lists of layers") {
		t.Errorf("two lists of layers for one config: %v", err)
	}
}

func TestManifestsThatDockerMadeAreTold(t *testing.T) {
	s := make(bundletest.Store)
	app := s.AddImage("amd64", "base")
	config, layers := paths(t, s, app)
	for _, c := range []string{
		`"LayerSources":{"sha256:x":{"size":5}}`,
		`"Parent":"sha256:x"`,
	} {
		docker := `[{"Config":"` + config + `","RepoTags":["app:1"],"Layers":["` + layers[0] + `"],` + c + `}]`
		_, layout := unpack(t, make(bundletest.Store), saved(t, s, map[string]ocispec.Descriptor{"docker.io/library/app:1": app}, docker))
		if !layout.Rebuilt {
			t.Errorf("not with %s", c)
		}
	}
}

func TestDockerArchivesAreRefusedWithTheCommandThatConvertsThem(t *testing.T) {
	hex := digest.FromString("x").Encoded()
	manifest := file{name: "manifest.json", content: `[{"Config":"` + hex + `.json","RepoTags":["app:1"],"Layers":["` + hex + `/layer.tar"]}]`}
	for name, files := range map[string][]file{
		"of Docker 20": {{name: hex + "/VERSION", content: "1.0"}, {name: hex + "/json"}, {name: hex + "/layer.tar", content: strings.Repeat("x", 2<<20)}, {name: hex + ".json"}, manifest},
		"of podman":    {{name: hex + ".tar", content: strings.Repeat("x", 2<<20)}, {name: hex + ".json"}, manifest},
		"of bazel":     {{name: "config.json"}, {name: "001.tar"}, manifest},
	} {
		err := read(bytes.NewReader(tarOf(t, files...)))
		if err == nil || !strings.Contains(err.Error(), "skopeo copy docker-archive:") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The names of layouts are where each tool puts them.
func TestNamesOfOtherToolsAreRead(t *testing.T) {
	s := make(bundletest.Store)
	app := s.AddImage("amd64", "base")
	for name, annotations := range map[string]string{
		"docker.io/library/app:1":  `{"io.containerd.image.name":"docker.io/library/app:1","org.opencontainers.image.ref.name":"1"}`, // ctr, docker
		"ghcr.io/org/app:1":        `{"org.opencontainers.image.ref.name":"ghcr.io/org/app:1"}`,                                      // podman, skopeo
		"1":                        `{"org.opencontainers.image.ref.name":"1"}`,                                                      // oras, buildx
		"docker.io/library/app:v2": `{"io.containerd.image.name":"docker.io/library/app:v2","other":{}}`,
	} {
		files := []file{layoutFile, {name: "index.json", content: `{"manifests":[{"mediaType":"` + app.MediaType + `","digest":"` + string(app.Digest) +
			`","size":` + string(must(json.Marshal(app.Size))) + `,"annotations":` + annotations + `}]}`}}
		site := maps.Clone(s)
		_, layout := unpack(t, site, tarOf(t, files...))
		if len(layout.Images) != 1 || layout.Images[0].Name != name || layout.Images[0].Digest != app.Digest {
			t.Errorf("%s: %v", name, layout.Images)
		}
	}
}

func must(raw []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return raw
}
