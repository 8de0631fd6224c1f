package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
)

// parcel is what an import brings: contents in their order.
type parcel struct {
	blobs []ImportBlob
	raw   map[digest.Digest][]byte
}

func newParcel(contents ...[]byte) parcel {
	p := parcel{raw: make(map[digest.Digest][]byte)}
	for _, raw := range contents {
		b := ImportBlob{digest.FromBytes(raw), int64(len(raw))}
		p.blobs = append(p.blobs, b)
		p.raw[b.Digest] = raw
	}
	return p
}

// atSite are the options of a store that holds 8 MiB.
var atSite = func() Options {
	opts := bounded
	opts.Tags = freshness
	return opts
}()

func (p parcel) reader(b ImportBlob) io.Reader { return bytes.NewReader(p.raw[b.Digest]) }

// startImport begins an import that ends with the test, before its store is closed.
func startImport(t testing.TB, s *Store) *Import {
	t.Helper()
	i, err := s.Import()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i
}

// put reserves the space for a parcel, and puts all of it.
func (p parcel) put(t testing.TB, i *Import) {
	t.Helper()
	if _, err := i.Reserve(t.Context(), p.blobs, nil); err != nil {
		t.Fatal(err)
	}
	for _, b := range p.blobs {
		if err := i.Put(t.Context(), b, p.reader(b)); err != nil {
			t.Fatal(err)
		}
	}
}

// publish publishes an image as team:v1 of a bundle.
func publish(t testing.TB, i *Import, img *image) {
	t.Helper()
	if err := i.Publish(t.Context(), ImportedImage{Repository: team, Tag: "v1", Digest: img.Digest, Bundle: "disk 1"}); err != nil {
		t.Fatal(err)
	}
}

// wantServed checks that team:v1 is served whole while no upstream answers.
func wantServed(t testing.TB, s *Store, img *image, layers ...*filltest.Origin) {
	t.Helper()
	m, _, err := s.Tag(t.Context(), team, "v1", dead)
	if err != nil || m.Digest != img.Digest {
		t.Errorf("the tag is %s, %v", m.Digest, err)
	}
	for _, l := range layers {
		blob := s.BlobHere(team, l.Digest)
		if blob == nil {
			t.Errorf("the layer %s is not served", l.Digest)
			continue
		}
		l.Compare(t, blob, 0, int64(len(l.Content)))
		blob.Close()
	}
}

// wantNothing checks that the cache shows no image.
func wantNothing(t testing.TB, s *Store) {
	t.Helper()
	if all := listed(t, s); len(all) != 0 {
		t.Errorf("these images are visible: %v", all)
	}
	if tags, err := s.Tags(team); err != nil || len(tags) != 0 {
		t.Errorf("these tags are visible: %v, %v", tags, err)
	}
	if pins, err := s.Pins(); err != nil || len(pins) != 0 {
		t.Errorf("these pins are visible: %v, %v", pins, err)
	}
}

func TestImportedImageIsVisibleWhenItIsWhole(t *testing.T) {
	dir := t.TempDir()
	opts := atSite
	s := openStore(t, dir, opts)
	large, small := filltest.New(5<<20, 1), filltest.New(10_000, 2)
	img := newImage("a", large, small)
	p := newParcel(img.Raw, large.Content, small.Content)
	i := startImport(t, s)
	if space, err := i.Reserve(t.Context(), p.blobs, nil); err != nil || len(space.Lacking) != 3 {
		t.Fatalf("%+v, %v", space, err)
	}
	for _, b := range p.blobs {
		wantNothing(t, s)
		if err := i.Put(t.Context(), b, p.reader(b)); err != nil {
			t.Fatal(err)
		}
	}
	wantNothing(t, s)
	if s.BlobHere(team, small.Digest) != nil {
		t.Error("a layer is served before its image is published")
	}
	confirmed := time.Now().Add(-10 * time.Minute).UTC().Truncate(time.Second)
	err := i.Publish(t.Context(), ImportedImage{Repository: team, Tag: "v1", Digest: img.Digest, Confirmed: confirmed, Bundle: "disk 1"})
	if err != nil {
		t.Fatal(err)
	}
	wantServed(t, s, img, large, small)
	i.Close()
	s.saveSnapshot(t.Context())
	for _, lose := range []string{"", "", "index"} { // after a restart, and after the index was lost
		evictAll(t, s)
		wantServed(t, s, img, large, small)
		shown := listed(t, s)[team.String()+":v1"]
		if !shown.Complete || !shown.Pinned || !shown.Checked.Equal(confirmed) {
			t.Errorf("%+v", shown)
		}
		pins, err := s.Pins()
		if want := []PinInfo{{Image: team.String() + ":v1", Digest: img.Digest, Bundle: "disk 1"}}; err != nil || !cmp.Equal(pins, want) {
			t.Errorf("the pins are %v, %v", pins, err)
		}
		for _, b := range p.blobs {
			if member, err := s.index.Member(team, b.Digest); err != nil || member.Proven != records.Proven {
				t.Errorf("%s: %+v, %v", b.Digest, member, err)
			}
		}
		checkCharges(t, s)
		closeStore(t, s)
		if lose != "" {
			if err := os.RemoveAll(filepath.Join(dir, lose)); err != nil {
				t.Fatal(err)
			}
		}
		s = openStore(t, dir, opts)
		loaded(t, s)
	}
	if err := s.Unpin(team, "v1"); err != nil {
		t.Fatal(err)
	}
	evictAll(t, s)
	if n := s.items.Len(); n != 0 {
		t.Errorf("%d blobs are left after the image was unpinned", n)
	}
}

func TestImportWithoutAPinIsEvictedByAge(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	img := newImage("a")
	i := startImport(t, s)
	newParcel(img.Raw).put(t, i)
	if err := i.Publish(t.Context(), ImportedImage{Repository: team, Digest: img.Digest}); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.ManifestHere(team, img.Digest); !ok {
		t.Error("the image is not served by its digest")
	}
	evictAll(t, s)
	if s.items.Len() != 1 {
		t.Error("it was evicted during the import")
	}
	i.Close()
	evictAll(t, s)
	if s.items.Len() != 0 {
		t.Error("it was not evicted")
	}
}

func TestImportOfAnIndexMayLeavePlatformsOut(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	layer := filltest.New(10_000, 1)
	amd, arm := newImage("amd", layer), newImage("arm")
	list := newList(amd, arm)
	i := startImport(t, s)
	newParcel(list.Raw, amd.Raw, layer.Content).put(t, i)
	img := ImportedImage{Repository: team, Tag: "v1", Digest: list.Digest, Bundle: "disk 1"}
	if err := i.Publish(t.Context(), img); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), string(arm.Digest)) {
		t.Errorf("a platform that is missing: %v", err)
	}
	wantNothing(t, s)
	img.LeftOut = []digest.Digest{arm.Digest}
	if err := i.Publish(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	wantServed(t, s, list, layer)
	if member, err := s.index.Member(team, arm.Digest); err != nil || !member.Manifest || member.Proven != records.ByWord {
		t.Errorf("the platform that was left out: %+v, %v", member, err)
	}
	pullDigest(t, s, team, arm) // it may come later
}

func TestReferrersComeWithTheirImage(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	img := newImage("a")
	config := []byte("{}")
	raw := fmt.Appendf(nil, `{"mediaType": %q, "config": {"digest": %q, "size": 2}, "layers": [], "subject": {"digest": %q, "size": %d}}`,
		ocispec.MediaTypeImageManifest, digest.FromBytes(config), img.Digest, img.Size)
	i := startImport(t, s)
	newParcel(raw, img.Raw).put(t, i)
	imported := ImportedImage{Repository: team, Tag: "v1", Digest: img.Digest, Referrers: []digest.Digest{digest.FromBytes(raw)}, Bundle: "disk 1"}
	if err := i.Publish(t.Context(), imported); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a referrer without its config: %v", err)
	}
	wantNothing(t, s)
	newParcel(config).put(t, i)
	if err := i.Publish(t.Context(), imported); err != nil {
		t.Fatal(err)
	}
	if rec, err := s.index.Blob(digest.FromBytes(raw)); err != nil || rec.Subject != img.Digest {
		t.Errorf("the referrer is recorded as %+v, %v", rec, err)
	}
	if _, ok := s.ManifestHere(team, digest.FromBytes(raw)); !ok {
		t.Error("the referrer is not served")
	}
	if list, _, err := s.Referrers(t.Context(), team, img.Digest, noLists); err != nil || len(list) != 1 || list[0].Digest != digest.FromBytes(raw) {
		t.Errorf("listed: %v, %v", list, err)
	}
	i.Close()
	evictAll(t, s)
	if _, ok := s.ManifestHere(team, digest.FromBytes(raw)); !ok || s.BlobHere(team, digest.FromBytes(config)) == nil {
		t.Error("the referrer was evicted, and its image is pinned")
	}
}

// noLists is an upstream that does not answer.
func noLists(context.Context) ([]ocispec.Descriptor, error) { return nil, filltest.ErrBroken }

func TestPublishRefusesWhatIsNotRight(t *testing.T) {
	layer := filltest.New(10_000, 1)
	lying := newImage("lying", &filltest.Origin{Digest: layer.Digest, Content: layer.Content[1:]})
	good := newImage("good", layer)
	for _, c := range []struct {
		name   string
		img    *image
		parcel parcel
		before func(t *testing.T, s *Store, i *Import)
		want   error
	}{
		{"a layer is missing", good, newParcel(good.Raw), nil, fs.ErrNotExist},
		{"the manifest is missing", good, newParcel(layer.Content), nil, fs.ErrNotExist},
		{"a manifest tells another size", lying, newParcel(lying.Raw, layer.Content), nil, ErrMismatch},
		{"it is no manifest", &image{Manifest: Manifest{Digest: layer.Digest}}, newParcel(layer.Content), nil, nil},
		{"a layer was removed since", good, newParcel(good.Raw, layer.Content), func(t *testing.T, s *Store, _ *Import) {
			if err := os.Remove(s.folder.Blob(layer.Digest)); err != nil {
				t.Fatal(err)
			}
			s.space.Release(must(s.items.Remove(layer.Digest)).Bytes)
		}, fs.ErrNotExist},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t, t.TempDir(), atSite)
			i := startImport(t, s)
			c.parcel.put(t, i)
			if c.before != nil {
				c.before(t, s, i)
			}
			err := i.Publish(t.Context(), ImportedImage{Repository: team, Tag: "v1", Digest: c.img.Digest, Bundle: "disk 1"})
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v", err)
			}
			wantNothing(t, s)
		})
	}
}

func must[T any](v T, _ bool) T { return v }

func TestImportHashesWhatIsHereAndReplacesWhatIsDamaged(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	layer, sound := filltest.New(100_000, 1), filltest.New(10_000, 2)
	pullLayers(t, s, layer, sound)
	damage(t, s, layer.Digest)
	img := newImage("a", layer, sound)
	p := newParcel(img.Raw, layer.Content, sound.Content)
	i := startImport(t, s)
	var progress []int64
	space, err := i.Reserve(t.Context(), p.blobs, func(done, total int64) { progress = append(progress, done, total) })
	if err != nil || !slices.Equal(space.Lacking, []digest.Digest{img.Digest, layer.Digest}) {
		t.Fatalf("%+v, %v", space, err)
	}
	if want := []int64{100_000, 110_000, 110_000, 110_000}; !slices.Equal(progress, want) {
		t.Errorf("the progress is %v", progress)
	}
	p.put(t, i)
	publish(t, i, img)
	wantServed(t, s, img, layer, sound)
}

// damage flips a bit of a blob at rest.
func damage(t *testing.T, s *Store, d digest.Digest) {
	t.Helper()
	path := s.folder.Blob(d)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestImportReservesAllOfItsSpaceFirst(t *testing.T) {
	opts := atSite
	s := openStore(t, t.TempDir(), opts)
	pinned, others := filltest.New(3<<20, 1), filltest.New(2<<20, 2)
	pullTag(t, s, other, "v1", newImage("pinned", pinned), pinned)
	if err := s.Pin(other, "v1"); err != nil {
		t.Fatal(err)
	}
	pullLayers(t, s, others)
	first, second := filltest.New(2<<20, 3), filltest.New(3<<20, 4)

	i := startImport(t, s)
	tooMuch := []ImportBlob{{first.Digest, 2 << 20}, {second.Digest, 4 << 20}}
	for name, ask := range map[string]func() error{
		"Space":   func() error { _, err := i.Space(tooMuch); return err },
		"Reserve": func() error { _, err := i.Reserve(t.Context(), tooMuch, nil); return err },
	} {
		if err := ask(); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "6291456 bytes beside the 3149824 that are pinned make 9441280") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Stat(others.Digest); err != nil {
		t.Error("something was evicted in vain")
	}
	i.Close()

	i = startImport(t, s)
	p := newParcel(first.Content, second.Content)
	space, err := i.Space(p.blobs)
	want := ImportSpace{Blobs: 2, Bytes: 5 << 20, Pinned: 3149824, Added: 5 << 20, MaxSize: opts.MaxSize, Lacking: []digest.Digest{first.Digest, second.Digest}}
	if !cmp.Equal(space, want) || err != nil {
		t.Errorf("%+v, %v", space, err)
	}
	if _, err := i.Reserve(t.Context(), p.blobs, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(others.Digest); err == nil {
		t.Error("nothing was evicted for the import")
	}
	if err := s.PinAllPlatforms(other, "v1"); err != nil {
		t.Error(err)
	}
	more := newImage("more", others)
	pullTag(t, s, other, "v2", more)
	if err := s.Pin(other, "v2"); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a pin beside the import: %v", err)
	}
	if state := pull(t, s, others); state != Bypass {
		t.Errorf("a blob beside the import: %s", state)
	}
	settle(t, s)
	for _, b := range p.blobs {
		if err := i.Put(t.Context(), b, p.reader(b)); err != nil {
			t.Error(err)
		}
	}
	i.Close()
	checkCharges(t, s)
}

func TestImportGivesBackWhatDidNotCome(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	loaded(t, s)
	i := startImport(t, s)
	if _, err := i.Reserve(t.Context(), []ImportBlob{{digest.FromString("a"), 5 << 20}, {digest.FromString("b"), 1}}, nil); err != nil {
		t.Fatal(err)
	}
	if used, _ := s.space.Account(); used != 5<<20+4096 {
		t.Errorf("%d bytes are reserved", used)
	}
	i.Close()
	checkCharges(t, s)
}

func TestPutRefusesContentThatIsNotTheBlobs(t *testing.T) {
	for _, size := range []int{1000, 5 << 20} { // in memory, and streamed
		o := filltest.New(size, 1)
		wrong := bytes.Clone(o.Content)
		wrong[size/2] ^= 1
		blob := ImportBlob{o.Digest, int64(size)}
		broken := errors.New("the drive was unplugged")
		for _, c := range []struct {
			name string
			blob ImportBlob
			r    io.Reader
			want error
		}{
			{"a bit is wrong", blob, bytes.NewReader(wrong), ErrMismatch},
			{"it is too short", blob, bytes.NewReader(o.Content[:size-1]), io.ErrUnexpectedEOF},
			{"it is empty", blob, bytes.NewReader(nil), io.ErrUnexpectedEOF},
			{"its size is too small", ImportBlob{o.Digest, int64(size) - 1}, bytes.NewReader(o.Content), ErrMismatch},
			{"the size is negative", ImportBlob{o.Digest, -1}, bytes.NewReader(o.Content), ErrMismatch},
			{"its reader fails", blob, io.MultiReader(bytes.NewReader(o.Content[:size/2]), iotest.ErrReader(broken)), broken},
			{"it is not a digest", ImportBlob{"../x", 5}, bytes.NewReader(o.Content), digest.ErrDigestInvalidFormat},
		} {
			t.Run(fmt.Sprintf("%d bytes, %s", size, c.name), func(t *testing.T) {
				s := openStore(t, t.TempDir(), atSite)
				i := startImport(t, s)
				if err := i.Put(t.Context(), c.blob, c.r); !errors.Is(err, c.want) {
					t.Errorf("got %v", err)
				}
				if _, err := s.Stat(o.Digest); err == nil {
					t.Error("it is in the cache")
				}
				settle(t, s)
				i.Close() // and lets its space go
				if err := startImport(t, s).Put(t.Context(), blob, bytes.NewReader(o.Content)); err != nil {
					t.Errorf("the right content after that: %v", err)
				}
				if _, err := s.Stat(o.Digest); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestPutRefusesMoreBytesThanWereSaid(t *testing.T) {
	for _, size := range []int{1000, 5 << 20} {
		s := openStore(t, t.TempDir(), atSite)
		o := filltest.New(size, 1)
		r := io.MultiReader(bytes.NewReader(o.Content), strings.NewReader("x"))
		if err := startImport(t, s).Put(t.Context(), ImportBlob{o.Digest, int64(size)}, r); !errors.Is(err, ErrMismatch) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// noReader fails a test that reads it.
type noReader struct{ t *testing.T }

func (r noReader) Read([]byte) (int, error) {
	r.t.Error("it was read")
	return 0, io.EOF
}

func TestPutReadsNothingOfABlobThatIsHere(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	o := filltest.New(5<<20, 1)
	pullLayers(t, s, o)
	i := startImport(t, s)
	for _, b := range []ImportBlob{{o.Digest, 5 << 20}, {emptySHA256, 0}} {
		if err := i.Put(t.Context(), b, noReader{t}); err != nil {
			t.Error(err)
		}
	}
}

func TestInterruptedPutIsResumed(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, atSite)
	o := filltest.New(7<<20, 1)
	b := ImportBlob{o.Digest, 7 << 20}
	broken := errors.New("the drive was unplugged")
	i := startImport(t, s)
	if _, err := i.Reserve(t.Context(), []ImportBlob{b}, nil); err != nil {
		t.Fatal(err)
	}
	err := i.Put(t.Context(), b, io.MultiReader(bytes.NewReader(o.Content[:6<<20]), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	i.Close()
	settle(t, s)
	closeStore(t, s)
	s = openStore(t, dir, atSite)
	loaded(t, s)
	if it, _ := s.items.Get(o.Digest); !it.Partial {
		t.Error("nothing of it was kept")
	}
	i = startImport(t, s)
	newParcel(o.Content).put(t, i)
	i.Close()
	if n := s.counts.FetchedBytes.Load(); n != 0 {
		t.Errorf("%d bytes count as fetched from an upstream", n)
	}
	checkCharges(t, s)
}

// All of a blob was written when the process was killed, and it was not committed yet.
func TestPutCompletesABlobOfWhichAllIsOnDisk(t *testing.T) {
	dir, killed := t.TempDir(), ""
	opts := atSite
	opts.steps = disk.Steps{Around: func(step disk.Step, take func() error) error {
		if step.Op == disk.OpRename && strings.Contains(step.Path, "partial/sha256-") && killed == "" {
			killed = crash(t, dir)
		}
		return take()
	}}
	s := openStore(t, dir, opts)
	o := filltest.New(7<<20, 1)
	i := startImport(t, s)
	newParcel(o.Content).put(t, i)
	i.Close()
	closeStore(t, s)
	if killed == "" {
		t.Fatal("the blob was not committed")
	}
	s = openStore(t, killed, atSite)
	loaded(t, s)
	if it, _ := s.items.Get(o.Digest); !it.Partial {
		t.Fatal("nothing of it was kept")
	}
	i = startImport(t, s)
	newParcel(o.Content).put(t, i)
	i.Close()
	if _, err := s.Stat(o.Digest); err != nil {
		t.Error(err)
	}
	checkCharges(t, s)
}

func TestPutEndsWithItsContext(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	o := filltest.New(5<<20, 1)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() {
		_, _ = w.Write(o.Content[:1<<20])
		cancel()
		_, _ = w.Write(o.Content[1<<20:])
	}()
	defer r.Close()
	if err := startImport(t, s).Put(ctx, ImportBlob{o.Digest, 5 << 20}, r); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// An upstream that is silent in the middle of a manifest does not hold up who imports it.
func TestPutOfAManifestThatIsBeingFetchedEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), Options{})
		img, release := newImage("a"), make(chan struct{})
		o := &filltest.Origin{Content: img.Raw, Digest: img.Digest, Plan: func(int, Range) filltest.Act {
			return filltest.Act{Gate: func(int64) { <-release }}
		}}
		blob := open(t, s, o)
		defer blob.Close()
		i := startImport(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		put := make(chan error, 1)
		go func() { put <- i.Put(ctx, ImportBlob{img.Digest, img.Size}, bytes.NewReader(img.Raw)) }()
		synctest.Wait()
		select {
		case err := <-put:
			t.Errorf("it ended before: %v", err)
		default:
		}
		cancel()
		synctest.Wait()
		select {
		case err := <-put:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("it ended with %v", err)
			}
		default:
			t.Error("it waits on")
		}
		close(release)
		settle(t, s)
	})
}

func TestPutAndAClientShareOneFill(t *testing.T) {
	s := openStore(t, t.TempDir(), small)
	o := filltest.New(6<<20, 1)
	began, proceed := make(chan struct{}), make(chan struct{})
	r, w := io.Pipe()
	put := make(chan error)
	i := startImport(t, s)
	go func() { put <- i.Put(t.Context(), ImportBlob{o.Digest, 6 << 20}, r) }()
	go func() {
		_, _ = w.Write(o.Content[:1<<20])
		close(began)
		<-proceed
		_, _ = w.Write(o.Content[1<<20:])
		w.Close()
	}()
	receive(t, began, "the import has brought a MiB")
	pulled := make(chan struct{})
	go func() {
		defer close(pulled)
		blob := open(t, s, o)
		defer blob.Close()
		close(proceed)
		o.Compare(t, blob, 0, 6<<20)
	}()
	if err := receive(t, put, "the import has the blob"); err != nil {
		t.Error(err)
	}
	receive(t, pulled, "the client has it")
	settle(t, s)
	if partials, err := filepath.Glob(filepath.Join(s.folder.Dir(), "partial", "*")); err != nil || len(partials) != 0 {
		t.Errorf("partials are left: %v, %v", partials, err)
	}
}

func TestHoldKeepsBlobsFromEviction(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	layer, free := filltest.New(10_000, 1), filltest.New(10_000, 2)
	pullLayers(t, s, layer, free)
	var holds [2]*Hold
	for n := range holds {
		h, err := s.Hold()
		if err != nil {
			t.Fatal(err)
		}
		missing, err := h.Add(layer.Digest, emptySHA256, digest.FromString("x"))
		if err != nil || !slices.Equal(missing, []digest.Digest{digest.FromString("x")}) {
			t.Errorf("missing: %v, %v", missing, err)
		}
		holds[n] = h
	}
	holds[0].Close()
	holds[0].Close()
	evictAll(t, s)
	blob, err := holds[1].Open(layer.Digest)
	if err != nil {
		t.Fatal(err)
	}
	layer.Compare(t, blob, 0, 10_000)
	blob.Close()
	if _, err := holds[1].Open(free.Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a blob that was evicted: %v", err)
	}
	if empty, err := holds[1].Open(emptySHA256); err != nil || empty.Size != 0 {
		t.Errorf("the empty blob: %+v, %v", empty, err)
	}
	if all, err := s.Digests(); err != nil || !slices.Equal(all, []digest.Digest{layer.Digest}) {
		t.Errorf("the cache has %v, %v", all, err)
	}
	holds[1].Close()
	evictAll(t, s)
	if _, err := s.Stat(layer.Digest); err == nil {
		t.Error("it is still held")
	}
}

func TestPinByHandOfAnImportedImageIsTheUsers(t *testing.T) {
	s := openStore(t, t.TempDir(), atSite)
	img := newImage("a")
	bundle := func() string {
		t.Helper()
		pins, err := s.Pins()
		if err != nil || len(pins) != 1 {
			t.Fatalf("%v, %v", pins, err)
		}
		return pins[0].Bundle
	}
	i := startImport(t, s)
	newParcel(img.Raw).put(t, i)
	publish(t, i, img)
	if bundle() != "disk 1" {
		t.Error("the pin does not tell its bundle")
	}
	if err := s.Pin(team, "v1"); err != nil {
		t.Fatal(err)
	}
	if bundle() != "" {
		t.Error("a pin by hand is still one of the bundle")
	}
	publish(t, i, img)
	if bundle() != "" {
		t.Error("a later import has taken the pin")
	}
}
