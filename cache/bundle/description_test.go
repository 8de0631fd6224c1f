package bundle_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/bundle"
)

func TestDescriptionsThatContradictThemselvesAreRefused(t *testing.T) {
	f := newFleet()
	good := f.plan(t, bundle.Options{Include: onlyAMD64}).Description()
	for _, c := range []struct {
		name  string
		alter func(*bundle.Description)
		want  string
	}{
		{"no parts", func(d *bundle.Description) { d.Parts = 0 }, "0 parts"},
		{"too many parts", func(d *bundle.Description) { d.Parts = 10_000 }, "10000 parts"},
		{"a blob in no part", func(d *bundle.Description) { d.Blobs[0].Part = 0 }, "in part 0 of 1"},
		{"a blob in a part that is not there", func(d *bundle.Description) { d.Blobs[0].Part = 2 }, "in part 2 of 1"},
		{"a blob twice", func(d *bundle.Description) { d.Blobs[1] = d.Blobs[0] }, "comes twice"},
		{"blobs that are not sorted", func(d *bundle.Description) { slices.Reverse(d.Blobs) }, "not sorted"},
		{"a negative size", func(d *bundle.Description) { d.Blobs[0].Size = -1 }, "-1 bytes"},
		{"sizes whose sum is too large", func(d *bundle.Description) {
			d.Present = []bundle.Blob{{Digest: f.app.Digest, Size: 1 << 62}, {Digest: f.index.Digest, Size: 1 << 62}}
		}, "too large"},
		{"no digest of the index", func(d *bundle.Description) { d.Files.Index = "" }, "index.json"},
		{"no digest of the layout", func(d *bundle.Description) { d.Files.Layout = "" }, "oci-layout"},
		{"a wrong digest of manifest.json", func(d *bundle.Description) { d.Files.Docker = "x" }, "manifest.json"},
		{"an image twice", func(d *bundle.Description) { d.Images[1].Name = d.Images[0].Name }, "comes twice"},
		{"an image without a name", func(d *bundle.Description) { d.Images[0].Name = "" }, "no name"},
		{"a long name", func(d *bundle.Description) { d.Images[0].Name = strings.Repeat("a", 513) }, "513 bytes"},
		{"an image that is no manifest", func(d *bundle.Description) { d.Images[0].MediaType = "text/html" }, "text/html"},
		{"an image that is not there", func(d *bundle.Description) { d.Images[0].Digest = digest.FromString("x") }, "does not have its manifest"},
		{"a platform that is not there", func(d *bundle.Description) { d.Images[0].Platforms[0].Digest = f.arm64.Digest }, "does not have its manifest"},
		{"a platform without a digest", func(d *bundle.Description) { d.Images[0].Platforms[0].Digest = "" }, "no digest"},
		{"a left out platform without a digest", func(d *bundle.Description) { d.Images[0].LeftOut[0].Digest = "" }, "no digest"},
		{"a referrer that is not there", func(d *bundle.Description) { d.Images[2].Referrers[0].Digest = f.arm64.Digest }, "does not have its manifest"},
		{"a referrer without a subject", func(d *bundle.Description) { d.Images[2].Referrers[0].Subject = "" }, "subject"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := bundle.ParseDescription(good.Raw())
			if err != nil {
				t.Fatal(err)
			}
			c.alter(d)
			raw, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := bundle.ParseDescription(raw); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	later := bytes.Replace(good.Raw(), []byte(`"version":1,`), []byte(`"version":1,"added later":{"x":[1]},`), 1)
	if d, err := bundle.ParseDescription(later); err != nil || len(d.Images) != 3 {
		t.Errorf("a field that is added later: %v", err)
	}
}
