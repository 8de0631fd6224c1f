package bundle_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cache/bundle/bundletest"
)

// drawFleet draws images that share layers, with indexes, attestations and referrers.
func drawFleet(t *rapid.T) (bundletest.Store, []bundle.Image) {
	s := make(bundletest.Store)
	layers := rapid.SliceOfN(rapid.StringN(0, 40, 2000), 1, 4)
	architecture := rapid.SampledFrom([]string{"amd64", "arm64", "riscv64"})
	var images []bundle.Image
	for i := range rapid.IntRange(0, 5).Draw(t, "images") {
		image := s.AddImage(architecture.Draw(t, "architecture"), layers.Draw(t, "layers")...)
		var all []ocispec.Descriptor
		for range rapid.IntRange(0, 3).Draw(t, "platforms") {
			platform := s.AddImage(architecture.Draw(t, "architecture"), layers.Draw(t, "layers")...)
			all = append(all, platform)
			if rapid.Bool().Draw(t, "attested") {
				attestation := s.AddReferrer(platform, "application/vnd.in-toto+json", "provenance")
				attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
				attestation.Annotations = map[string]string{"vnd.docker.reference.digest": string(platform.Digest)}
				all = append(all, attestation)
			}
		}
		if len(all) > 0 {
			image = s.AddIndex(all...)
		}
		named := bundle.Image{Name: fmt.Sprintf("example.com/app%d:1", i), Digest: image.Digest}
		for range rapid.IntRange(0, 2).Draw(t, "referrers") {
			named.Referrers = append(named.Referrers, bundle.Referrer{Digest: s.AddReferrer(image, "text/x", layers.Draw(t, "layers")[0]).Digest})
		}
		images = append(images, named)
	}
	return s, images
}

func pack(t *rapid.T, s bundletest.Store, p *bundle.Plan, part int) []byte {
	planned, err := p.Part(part, nil)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := planned.Write(t.Context(), &buf, 0, s.Open); err != nil {
		t.Fatal(err)
	}
	if int64(buf.Len()) != planned.Size() {
		t.Fatalf("part %d has %d bytes, and %d were planned", part, buf.Len(), planned.Size())
	}
	return buf.Bytes()
}

// Whatever is exported, for any site and in any parts: once all parts are there in any order,
// the site has every blob that the manifests name, each image is whole, and no part is larger
// than asked for or has what the site had.
func TestPartsMakeTheSiteWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, images := drawFleet(t)
		site := make(bundletest.Store)
		for _, d := range slices.Sorted(maps.Keys(s)) {
			if rapid.IntRange(0, 3).Draw(t, "the site has it") == 0 {
				site[d] = s[d]
			}
		}
		architectures := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"amd64", "arm64"}), rapid.ID).Draw(t, "only")
		opts := bundle.Options{
			Manifest: s.Manifest, Present: site.Has, PartSize: rapid.Int64Range(75<<10, 120<<10).Draw(t, "part size"),
		}
		if len(architectures) > 0 {
			opts.Include = func(_ digest.Digest, p *ocispec.Platform) bool {
				return p == nil || slices.Contains(architectures, p.Architecture)
			}
		}
		before := maps.Clone(site)
		plan, err := bundle.NewPlan(images, opts)
		if err != nil {
			t.Skip(err) // no platform, or a part that is too small
		}
		parts := make([]int, plan.Description().Parts)
		for i := range parts {
			parts[i] = i + 1
		}
		sent, layout := 0, (*bundle.Layout)(nil)
		for _, part := range rapid.Permutation(parts).Draw(t, "order") {
			raw := pack(t, s, plan, part)
			if int64(len(raw)) > opts.PartSize {
				t.Fatalf("part %d has %d bytes of %d", part, len(raw), opts.PartSize)
			}
			r, err := bundle.NewReader(bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			known := len(site)
			if layout, err = site.Unpack(r); err != nil {
				t.Fatal(err)
			}
			sent += len(site) - known
		}
		if want := len(plan.Description().Blobs); sent != want {
			t.Fatalf("%d blobs were new, of %d that were sent", sent, want)
		}
		n := 0
		for tree, err := range layout.Resolve(site.Manifest, site.Has) {
			if err != nil || len(tree.Missing) > 0 {
				t.Fatalf("%s misses %v: %v", tree.Name, tree.Missing, err)
			}
			n++
			seen := make(map[digest.Digest]bool)
			for _, c := range tree.Contents {
				if seen[c.Digest] || int64(len(site[c.Digest])) != c.Size {
					t.Fatalf("%s comes twice, or has not %d bytes", c.Digest, c.Size)
				}
				seen[c.Digest] = true
			}
		}
		if n != len(images) {
			t.Fatalf("%d of %d images", n, len(images))
		}
		for d := range before {
			if _, ok := plan.Description().Blob(d); ok {
				t.Fatalf("%s was sent though the site has it", d)
			}
		}
	})
}

// One byte that is altered anywhere is noticed: by the reader, by the digest of a blob, or by
// the signature, which covers the description. Padding and times mean nothing, and the mode
// of an entry is not used.
func TestOneAlteredByteIsNoticed(t *testing.T) {
	f := newFleet()
	raw := f.Pack(t, f.plan(t, bundle.Options{}), 1, nil)
	original := f.plan(t, bundle.Options{}).Description().Raw()
	rapid.Check(t, func(t *rapid.T) {
		altered := bytes.Clone(raw)
		at := rapid.IntRange(0, len(raw)-1).Draw(t, "at")
		altered[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "by"))
		site := make(bundletest.Store)
		r, err := bundle.NewReader(bytes.NewReader(altered))
		if err != nil {
			return
		}
		if r.Description() == nil || !bytes.Equal(r.Description().Raw(), original) {
			return // the signature does not hold
		}
		if _, err := site.Unpack(r); err != nil {
			return
		}
		if !maps.EqualFunc(site, f.Store, bytes.Equal) {
			t.Fatalf("byte %d: another bundle is accepted", at)
		}
	})
}

// FuzzReader reads anything, as a stream and as a file. Both must agree.
func FuzzReader(f *testing.F) {
	fleet := newFleet()
	raw := fleet.Pack(f, fleet.plan(f, bundle.Options{}), 1, []byte("signature"))
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Add(layoutOf(f, fleet.Store, map[string]ocispec.Descriptor{"docker.io/library/redis:7": fleet.index}, fleet.signature))
	zipped, zstandard := compressed(f, raw)
	f.Add(zipped)
	f.Add(zstandard)
	f.Fuzz(func(t *testing.T, raw []byte) {
		blobs := make([]bundletest.Store, 2)
		errs := make([]error, 2)
		for i, in := range []io.Reader{bytes.NewBuffer(raw), bytes.NewReader(raw)} {
			blobs[i] = make(bundletest.Store)
			r, err := bundle.NewReader(in)
			if err != nil {
				errs[i] = err
				continue
			}
			layout, err := blobs[i].Unpack(r)
			if errs[i] = errors.Join(err, r.Close()); err != nil {
				continue
			}
			for tree, err := range layout.Resolve(blobs[i].Manifest, blobs[i].Has) {
				if err == nil && len(tree.Missing) == 0 && !blobs[i].Has(tree.Digest) {
					t.Errorf("%s is whole without its manifest", tree.Name)
				}
			}
		}
		if (errs[0] == nil) != (errs[1] == nil) {
			t.Errorf("a stream: %v; a file: %v", errs[0], errs[1])
		}
		if errs[0] == nil && !maps.EqualFunc(blobs[0], blobs[1], bytes.Equal) {
			t.Error("a stream and a file have different blobs")
		}
	})
}

func FuzzInventory(f *testing.F) {
	f.Add([]byte(`{"version":1,"images":[{"name":"a","digest":"` + string(digest.FromString("a")) + `"}],"digests":["` + string(digest.FromString("a")) + `"]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		inv, err := bundle.ReadInventory(bytes.NewReader(raw))
		if err != nil {
			return
		}
		var buf bytes.Buffer
		if err := inv.Write(&buf); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := bundle.ReadInventory(&buf); err != nil {
			t.Errorf("what was written cannot be read: %v", err)
		}
	})
}
