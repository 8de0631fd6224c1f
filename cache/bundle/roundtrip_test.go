package bundle_test

import (
	"bytes"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cache/bundle/bundletest"
)

// fleet are images as a site has them: an index with an attestation, a signed image that
// shares a layer with it, and one by digest.
type fleet struct {
	bundletest.Store
	amd64, arm64, attestation, index, app, signature ocispec.Descriptor
	images                                           []bundle.Image
}

func newFleet() *fleet {
	f := &fleet{Store: make(bundletest.Store)}
	f.amd64, f.arm64 = f.AddImage("amd64", "base", "redis for amd64"), f.AddImage("arm64", "base of arm", "redis for arm64")
	f.attestation = f.AddReferrer(f.arm64, "application/vnd.in-toto+json", "provenance")
	f.attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	f.attestation.Annotations = map[string]string{"vnd.docker.reference.digest": string(f.arm64.Digest)}
	f.index = f.AddIndex(f.amd64, f.arm64, f.attestation)
	f.app = f.AddImage("amd64", "base", "app")
	f.signature = f.AddReferrer(f.app, "application/vnd.dev.sigstore.bundle.v0.3+json", "signature")
	f.images = []bundle.Image{
		{Name: "docker.io/library/redis:7", Digest: f.index.Digest, Confirmed: time.Date(2026, 11, 2, 3, 4, 5, 6, time.UTC)},
		{Name: "ghcr.io/org/app:1", Digest: f.app.Digest, Referrers: []bundle.Referrer{{Digest: f.signature.Digest}}},
		{Name: "docker.io/library/redis@" + string(f.amd64.Digest), Digest: f.amd64.Digest},
	}
	return f
}

// plan plans a bundle of all images.
func (f *fleet) plan(t testing.TB, opts bundle.Options) *bundle.Plan {
	t.Helper()
	opts.Manifest = f.Manifest
	p, err := bundle.NewPlan(f.images, opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func onlyAMD64(_ digest.Digest, p *ocispec.Platform) bool {
	return p == nil || p.Architecture == "amd64"
}

// unpack adds what a file has to a store.
func unpack(t testing.TB, to bundletest.Store, file []byte) (*bundle.Reader, *bundle.Layout) {
	t.Helper()
	r, err := bundle.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	l, err := to.Unpack(r)
	if err != nil {
		t.Fatal(err)
	}
	return r, l
}

// trees resolves all images of a layout.
func trees(t testing.TB, l *bundle.Layout, s bundletest.Store) []bundle.Tree {
	t.Helper()
	var all []bundle.Tree
	for tree, err := range l.Resolve(s.Manifest, s.Has) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tree)
	}
	return all
}

func TestBundleCarriesImagesByNameAndDigest(t *testing.T) {
	f := newFleet()
	plan := f.plan(t, bundle.Options{})
	site := make(bundletest.Store)
	r, layout := unpack(t, site, f.Pack(t, plan, 1, []byte("signature")))

	if diff := cmp.Diff(f.Store, site); diff != "" {
		t.Errorf("blobs differ (-packed +unpacked):\n%s", diff)
	}
	if got := string(r.Signature()); got != "signature" {
		t.Errorf("the signature is %q", got)
	}
	if !bytes.Equal(r.Description().Raw(), plan.Description().Raw()) {
		t.Error("the description is another one")
	}
	got := trees(t, layout, site)
	names := []string{"docker.io/library/redis:7", "docker.io/library/redis@" + string(f.amd64.Digest), "ghcr.io/org/app:1"}
	for i, tree := range got {
		if tree.Name != names[i] || len(tree.Missing) != 0 {
			t.Errorf("image %d is %s, and %v are missing", i, tree.Name, tree.Missing)
		}
	}
	redis := got[0].Image
	want := bundle.Image{
		Name: names[0], Digest: f.index.Digest, MediaType: ocispec.MediaTypeImageIndex, Size: f.index.Size,
		Platforms: []bundle.Child{{Digest: f.amd64.Digest, Platform: "linux/amd64"}, {Digest: f.arm64.Digest, Platform: "linux/arm64"}},
		Confirmed: time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC),
	}
	if diff := cmp.Diff(want, redis); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	ref := bundle.Referrer{
		Digest: f.signature.Digest, MediaType: ocispec.MediaTypeImageManifest, Size: f.signature.Size,
		ArtifactType: "application/vnd.dev.sigstore.bundle.v0.3+json", Subject: f.app.Digest,
	}
	if diff := cmp.Diff([]bundle.Referrer{ref}, got[2].Referrers); diff != "" {
		t.Errorf("referrers (-want +got):\n%s", diff)
	}
	if len(got[2].Contents) != 7 || got[2].Contents[3].Digest != f.app.Digest || got[2].Contents[6].Digest != f.signature.Digest {
		t.Errorf("children do not come before their parents: %v", got[2].Contents)
	}
}

func TestSameImagesMakeTheSameBytes(t *testing.T) {
	f := newFleet()
	first := f.Pack(t, f.plan(t, bundle.Options{}), 1, nil)
	slices.Reverse(f.images)
	f.images[0].Confirmed = f.images[0].Confirmed.In(time.FixedZone("", 3600))
	if !bytes.Equal(first, f.Pack(t, f.plan(t, bundle.Options{}), 1, nil)) {
		t.Error("the same images made other bytes")
	}
}

func TestPlatformsThatAreLeftOutAreDeclared(t *testing.T) {
	f := newFleet()
	site := make(bundletest.Store)
	_, layout := unpack(t, site, f.Pack(t, f.plan(t, bundle.Options{Include: onlyAMD64}), 1, nil))
	redis := trees(t, layout, site)[0]
	if len(redis.Missing) != 0 {
		t.Errorf("missing: %v", redis.Missing)
	}
	want := []bundle.Child{
		{Digest: f.arm64.Digest, Platform: "linux/arm64"},
		{Digest: f.attestation.Digest, Platform: "unknown/unknown"}, // it goes where its image goes
	}
	if diff := cmp.Diff(want, redis.LeftOut); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
	for _, d := range []digest.Digest{f.arm64.Digest, f.attestation.Digest, digest.FromString("redis for arm64")} {
		if site.Has(d) {
			t.Errorf("%s is in the bundle", d)
		}
	}
}

// Clients that pull an image for their platform fetch neither BuildKit's attestations of it nor
// SOCI's indexes, so that a cache does not have them.
func TestAttachedEntriesMayBeLeftOut(t *testing.T) {
	f := newFleet()
	soci := f.AddReferrer(f.amd64, "application/vnd.amazon.soci.index.v2+json", "ztoc")
	soci.ArtifactType = "application/vnd.amazon.soci.index.v2+json"
	soci.Annotations = map[string]string{"com.amazon.soci.image-manifest-digest": string(f.amd64.Digest)}
	chart := f.AddReferrer(f.app, "application/vnd.cncf.helm", "chart") // about no image of the index
	f.index = f.AddIndex(f.amd64, f.arm64, f.attestation, soci, chart)
	for name, c := range map[string]struct {
		include func(digest.Digest, *ocispec.Platform) bool
		left    []digest.Digest
	}{
		"all":                        {nil, nil},
		"without attachments":        {func(_ digest.Digest, p *ocispec.Platform) bool { return p != nil }, []digest.Digest{f.attestation.Digest, soci.Digest}},
		"without amd64":              {func(d digest.Digest, _ *ocispec.Platform) bool { return d != f.amd64.Digest }, []digest.Digest{f.amd64.Digest, soci.Digest}},
		"amd64, without attachments": {func(d digest.Digest, _ *ocispec.Platform) bool { return d == f.amd64.Digest }, []digest.Digest{f.arm64.Digest, f.attestation.Digest, soci.Digest}},
	} {
		t.Run(name, func(t *testing.T) {
			cached, site := maps.Clone(f.Store), make(bundletest.Store)
			for _, d := range c.left {
				delete(cached, d)
			}
			plan, err := bundle.NewPlan([]bundle.Image{{Name: "app:1", Digest: f.index.Digest}}, bundle.Options{Manifest: cached.Manifest, Include: c.include})
			if err != nil {
				t.Fatal(err)
			}
			_, layout := unpack(t, site, cached.Pack(t, plan, 1, nil))
			tree := trees(t, layout, site)[0]
			var left []digest.Digest
			for _, child := range tree.LeftOut {
				left = append(left, child.Digest)
			}
			if !slices.Equal(left, c.left) || len(tree.Missing) > 0 {
				t.Errorf("left out %v, want %v; missing %v", left, c.left, tree.Missing)
			}
		})
	}
}

func TestPresentBlobsAreLeftOut(t *testing.T) {
	f := newFleet()
	site := make(bundletest.Store)
	earlier := *f
	earlier.images = f.images[:1] // redis
	unpack(t, site, f.Pack(t, earlier.plan(t, bundle.Options{}), 1, nil))

	before := maps.Clone(site)
	delta := f.plan(t, bundle.Options{Present: site.Has})
	if got, want := len(delta.Description().Blobs), 5; got != want {
		t.Errorf("the delta has %d blobs, want %d: those of the app's manifest, config and second layer, and of the signature", got, want)
	}
	_, layout := unpack(t, site, f.Pack(t, delta, 1, nil))
	for _, tree := range trees(t, layout, site) {
		if len(tree.Missing) > 0 {
			t.Errorf("%s misses %v", tree.Name, tree.Missing)
		}
	}
	base := digest.FromString("base")
	delete(site, base)
	for _, tree := range trees(t, layout, site) {
		if !slices.ContainsFunc(tree.Missing, func(c bundle.Content) bool { return c.Digest == base }) {
			t.Errorf("%s does not miss the layer that the site has lost", tree.Name)
		}
	}
	for d := range before {
		if _, ok := delta.Description().Blob(d); ok {
			t.Errorf("%s is sent again", d)
		}
	}
}

func TestPartsAreReadInAnyOrder(t *testing.T) {
	f := newFleet()
	blob := bytes.Repeat([]byte("x"), 90<<10)
	for i := range 4 {
		blob[0] = byte(i)
		f.images = append(f.images, bundle.Image{
			Name: "ghcr.io/org/large:" + string(rune('a'+i)), Digest: f.AddImage("amd64", string(blob)).Digest,
		})
	}
	const partSize = 280 << 10
	plan := f.plan(t, bundle.Options{PartSize: partSize})
	parts := plan.Description().Parts
	if parts < 2 {
		t.Fatalf("there are %d parts", parts)
	}
	site := make(bundletest.Store)
	whole := make(map[string]bool)
	for number := parts; number > 0; number-- {
		file := f.Pack(t, plan, number, bytes.Repeat([]byte("s"), 64<<10))
		if len(file) > partSize {
			t.Errorf("part %d has %d bytes", number, len(file))
		}
		r, layout := unpack(t, site, file)
		if r.Part() != number {
			t.Errorf("part %d says that it is part %d", number, r.Part())
		}
		for _, tree := range trees(t, layout, site) {
			if whole[tree.Name] && len(tree.Missing) > 0 {
				t.Errorf("%s misses something again", tree.Name)
			}
			whole[tree.Name] = len(tree.Missing) == 0
		}
	}
	if len(whole) != len(f.images) || slices.Contains(slices.Collect(maps.Values(whole)), false) {
		t.Errorf("whole after all parts: %v", whole)
	}
	if diff := cmp.Diff(f.Store, site); diff != "" {
		t.Errorf("blobs differ (-packed +unpacked):\n%s", diff)
	}
}
