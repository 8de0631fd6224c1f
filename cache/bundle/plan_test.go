package bundle_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cache/bundle/bundletest"
)

// The bytes of a bundle are a promise, and part of the format. They may change with its
// version.
func TestBundleHasTheseBytes(t *testing.T) {
	f := newFleet()
	const want = "sha256:9db8fd0e003df22ec0f76da92645905ec17ff93b91e2829f846a7bd15720f1ac"
	if got := digest.FromBytes(f.Pack(t, f.plan(t, bundle.Options{}), 1, []byte("signature"))); got != want {
		t.Errorf("the bundle is %s, want %s", got, want)
	}
}

func TestEntriesHaveNothingOfThisMachine(t *testing.T) {
	f := newFleet()
	for _, e := range headers(t, f.Pack(t, f.plan(t, bundle.Options{}), 1, []byte("signature"))) {
		mode := int64(0o444)
		if strings.HasSuffix(e.Name, "/") {
			mode = 0o755
		}
		if e.Mode != mode || e.Uid != 0 || e.Gid != 0 || e.Uname != "" || e.Gname != "" || e.ModTime.Unix() != 0 || len(e.PAXRecords) > 0 {
			t.Errorf("%s: %+v", e.Name, e)
		}
	}
}

func TestPlansThatCannotBeWrittenAreRefused(t *testing.T) {
	f := newFleet()
	good := f.images[0]
	chart := f.AddReferrer(f.app, "application/vnd.cncf.helm", "chart")
	wrongSize := f.app
	wrongSize.Size++
	deep := f.amd64
	for range 10 {
		deep = f.AddIndex(deep)
	}
	for _, c := range []struct {
		name   string
		images []bundle.Image
		opts   bundle.Options
		want   string
	}{
		{"a manifest that is not there", []bundle.Image{{Name: "app:1", Digest: digest.FromString("x")}}, bundle.Options{}, "image app:1: manifest " + string(digest.FromString("x"))},
		{"a blob in place of a manifest", []bundle.Image{{Name: "app:1", Digest: digest.FromString("base")}}, bundle.Options{}, "refused"},
		{"no name", []bundle.Image{{Digest: f.app.Digest}}, bundle.Options{}, "no name"},
		{"a name twice", []bundle.Image{good, good}, bundle.Options{}, "comes twice"},
		{"no platform", []bundle.Image{good}, bundle.Options{Include: func(digest.Digest, *ocispec.Platform) bool { return false }}, "none of its platforms"},
		{"a referrer of nothing", []bundle.Image{{Name: "app:1", Digest: f.app.Digest, Referrers: []bundle.Referrer{{Digest: f.amd64.Digest}}}}, bundle.Options{}, "no subject"},
		{"an index with a wrong size", []bundle.Image{{Name: "app:1", Digest: f.AddIndex(wrongSize).Digest}}, bundle.Options{}, "and a manifest says"},
		{"indexes in indexes", []bundle.Image{{Name: "app:1", Digest: deep.Digest}}, bundle.Options{}, "deep"},
		{"a part that is too small", []bundle.Image{good}, bundle.Options{PartSize: 70 << 10}, "parts must have"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.opts.Manifest = f.Manifest
			if _, err := bundle.NewPlan(c.images, c.opts); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := bundle.NewPlan([]bundle.Image{{Name: "chart:1", Digest: chart.Digest}}, bundle.Options{Manifest: f.Manifest}); err != nil {
		t.Errorf("an artifact as an image: %v", err)
	}
}

// What fits into parts of the size that the error names does.
func TestErrorOfSmallPartsSaysWhichSizeSuffices(t *testing.T) {
	f := newFleet()
	_, err := bundle.NewPlan(f.images, bundle.Options{Manifest: f.Manifest, PartSize: 1})
	if err == nil {
		t.Fatal("parts of one byte are planned")
	}
	_, rest, _ := strings.Cut(err.Error(), "parts must have ")
	size := number(t, rest)
	plan, err := bundle.NewPlan(f.images, bundle.Options{Manifest: f.Manifest, PartSize: size + 1024}) // the named blob may not be the largest
	if err != nil {
		t.Fatal(err)
	}
	for n := range plan.Description().Parts {
		if got := len(f.Pack(t, plan, n+1, bytes.Repeat([]byte("s"), 64<<10))); int64(got) > size+1024 {
			t.Errorf("part %d has %d bytes", n+1, got)
		}
	}
}

// number parses the number that a text begins with.
func number(t *testing.T, s string) (n int64) {
	t.Helper()
	for _, c := range s {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

func TestOnlyWholeImagesOfOnePlatformAreForDocker(t *testing.T) {
	f := newFleet()
	f.images = append(f.images, bundle.Image{Name: "ghcr.io/org/chart:1", Digest: f.signature.Digest})
	tags := func(opts bundle.Options) string {
		for _, e := range untar(t, f.Pack(t, f.plan(t, opts), 1, nil)) {
			if e.name == "manifest.json" {
				return e.content
			}
		}
		return ""
	}
	has := func(content, name string) bool { return strings.Contains(content, `"RepoTags":["`+name+`"]`) }
	all := tags(bundle.Options{})
	if has(all, "docker.io/library/redis:7") || !has(all, "ghcr.io/org/app:1") || strings.Contains(all, "chart") || strings.Contains(all, "@") {
		t.Errorf("all platforms: %s", all)
	}
	if one := tags(bundle.Options{Include: onlyAMD64}); !has(one, "docker.io/library/redis:7") || !has(one, "ghcr.io/org/app:1") {
		t.Errorf("one platform: %s", one)
	}
	present := func(d digest.Digest) bool { return d == digest.FromString("app") }
	if without := tags(bundle.Options{Present: present}); has(without, "ghcr.io/org/app:1") {
		t.Errorf("without a layer: %s", without)
	}
	f.images = f.images[:1]
	if none := tags(bundle.Options{}); none != "" {
		t.Errorf("no image: %s", none)
	}
}

// failing gives content that is not a blob's.
type failing struct {
	bundletest.Store
	of   digest.Digest
	give []byte // nil for none
}

func (f failing) Open(ctx context.Context, b bundle.Blob) (io.ReadCloser, error) {
	switch {
	case b.Digest != f.of:
		return f.Store.Open(ctx, b)
	case f.give == nil:
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(f.give)), nil
}

func TestExportEndsAtContentThatIsNotTheBlobs(t *testing.T) {
	f := newFleet()
	part, err := f.plan(t, bundle.Options{}).Part(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, give := range map[string]string{"other bytes": "abse", "fewer bytes": "bas", "more bytes": "base!", "nothing": "", "no blob": "-"} {
		t.Run(name, func(t *testing.T) {
			from := failing{f.Store, digest.FromString("base"), []byte(give)}
			if give == "-" {
				from.give = nil
			}
			var buf bytes.Buffer
			err := part.Write(t.Context(), &buf, 0, from.Open)
			var entry *bundle.EntryError
			if !errors.As(err, &entry) || entry.Name != blob("base").name {
				t.Fatalf("got %v", err)
			}
			if err := read(bytes.NewReader(buf.Bytes())); err == nil {
				t.Error("what was written is read as a whole bundle")
			}
			kept, err := part.Kept(bytes.NewReader(buf.Bytes()))
			if err != nil || kept == 0 || kept >= int64(buf.Len()) {
				t.Errorf("%d of %d bytes are kept, %v", kept, buf.Len(), err)
			}
		})
	}
}

func TestExportEndsWithItsContext(t *testing.T) {
	f := newFleet()
	part, err := f.plan(t, bundle.Options{}).Part(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("the user stopped it")
	err = part.Write(ctx, io.Discard, 0, func(ctx context.Context, b bundle.Blob) (io.ReadCloser, error) {
		if b.Digest == digest.FromString("base") {
			cancel(stopped)
		}
		return f.Open(ctx, b)
	})
	if !errors.Is(err, stopped) {
		t.Errorf("got %v", err)
	}
}

func TestInterruptedExportGoesOnWhereItEnded(t *testing.T) {
	f := newFleet()
	signature := []byte("signature")
	whole := f.Pack(t, f.plan(t, bundle.Options{}), 1, signature)
	for cut := 0; cut <= len(whole); cut += 101 {
		left := bytes.Clone(whole[:cut])
		if cut > 600 {
			left = append(left[:cut-13], make([]byte, 13)...) // what a power cut left of the last page
		}
		plan := f.plan(t, bundle.Options{})
		if r, err := bundle.NewReader(bytes.NewReader(left)); err == nil && r.Plan() != nil {
			plan = r.Plan() // as planned, whatever the cache has now
			signature = r.Signature()
		}
		part, err := plan.Part(1, signature)
		if err != nil {
			t.Fatal(err)
		}
		kept, err := part.Kept(bytes.NewReader(left))
		if err != nil {
			t.Fatal(err)
		}
		if kept > int64(cut) || int64(cut)-kept > 6<<10 {
			t.Errorf("%d of %d bytes are kept", kept, cut)
		}
		written := bytes.NewBuffer(left[:kept])
		if err := part.Write(t.Context(), written, kept, f.Open); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(written.Bytes(), whole) {
			t.Fatalf("continued at byte %d of %d, it is another bundle", kept, cut)
		}
	}
	part, err := f.plan(t, bundle.Options{}).Part(1, signature)
	if err != nil {
		t.Fatal(err)
	}
	if err := part.Write(t.Context(), io.Discard, 700, f.Open); err == nil {
		t.Error("it goes on in the middle of an entry")
	}
}

func TestKeptReportsErrorsOfTheDisk(t *testing.T) {
	f := newFleet()
	part, err := f.plan(t, bundle.Options{}).Part(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	whole := f.Pack(t, f.plan(t, bundle.Options{}), 1, nil)
	broken := errors.New("input/output error")
	for cut := 0; cut < len(whole); cut += 333 {
		in := io.MultiReader(bytes.NewReader(whole[:cut]), iotestErr{broken})
		if kept, err := part.Kept(in); !errors.Is(err, broken) || kept > int64(cut) {
			t.Errorf("after %d bytes: %d, %v", cut, kept, err)
		}
	}
}

type iotestErr struct{ error }

func (e iotestErr) Read([]byte) (int, error) { return 0, e.error }

func TestPartsAndSignaturesHaveLimits(t *testing.T) {
	f := newFleet()
	plan := f.plan(t, bundle.Options{})
	for _, n := range []int{0, 2} {
		if _, err := plan.Part(n, nil); err == nil {
			t.Errorf("there is a part %d", n)
		}
	}
	if _, err := plan.Part(1, make([]byte, 64<<10+1)); err == nil {
		t.Error("a signature of more than 64 KiB is written")
	}
}
