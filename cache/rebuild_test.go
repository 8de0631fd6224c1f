package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// edge is the content of a cache at a site whose link goes down: a plain image; an index of two
// platforms, of which one is stored; and an image whose manifest has no media type. The index
// is pinned.
type edge struct {
	plain, index, platform, untyped *image
	layers                          [3]*filltest.Origin // of plain, platform and untyped
	order                           []digest.Digest
}

var edgeOptions = Options{Tags: Freshness{StaleIfError: time.Hour}, ScrubEvery: -1}

func newEdge() *edge {
	e := &edge{layers: [3]*filltest.Origin{filltest.New(100<<10, 1), filltest.New(50<<10, 2), filltest.New(10<<10, 3)}}
	e.plain = newImage("plain", e.layers[0])
	e.platform = newImage("platform", e.layers[1])
	e.index = newDocument(ocispec.MediaTypeImageIndex, fmt.Sprintf(
		`{"manifests": [{"digest": %q, "size": %d}, {"digest": %q, "size": 1}]}`,
		e.platform.Digest, e.platform.Size, digest.FromString("another platform")))
	e.untyped = newDocument(ocispec.MediaTypeImageManifest, fmt.Sprintf(
		`{"config": {"digest": %q, "size": 2}, "layers": [{"digest": %q, "size": 1}]}`,
		digest.FromString("{}"), e.layers[2].Digest))
	return e
}

func newDocument(mediaType, raw string) *image {
	return &image{Manifest: Manifest{
		Digest: digest.FromString(raw), MediaType: mediaType, Size: int64(len(raw)), Raw: []byte(raw),
	}}
}

// tagged returns the images that have a tag, by tag.
func (e *edge) tagged() map[string]*image {
	return map[string]*image{"plain": e.plain, "index": e.index, "untyped": e.untyped}
}

// fill stores everything.
func (e *edge) fill(t *testing.T, s *Store) {
	t.Helper()
	for tag, img := range e.tagged() {
		if _, _, err := s.Tag(t.Context(), team, tag, img.ask); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Manifest(t.Context(), team, e.platform.Digest, e.platform.ask); err != nil {
		t.Fatal(err)
	}
	for _, o := range e.layers {
		pull(t, s, o)
	}
	settle(t, s)
	if err := s.Pin(team, "index"); err != nil {
		t.Fatal(err)
	}
	loaded(t, s)
	// This is neither the order in which they were stored nor that of their sizes.
	for i, d := range []digest.Digest{
		e.layers[2].Digest, e.plain.Digest, e.untyped.Digest, e.layers[0].Digest,
		e.platform.Digest, e.index.Digest, e.layers[1].Digest,
	} {
		s.items.Use(d, time.Now().Add(time.Duration(i)*time.Minute))
	}
	e.order = s.items.Digests()
}

// check requests everything. ask is the upstream for tags; there is none for anything else.
func (e *edge) check(t *testing.T, s *Store, ask func(*image) Ask) {
	t.Helper()
	never := func(context.Context) (int64, error) { return 0, filltest.ErrBroken }
	for tag, img := range e.tagged() {
		m, _, err := s.Tag(t.Context(), team, tag, ask(img))
		if err != nil || m.Digest != img.Digest || m.MediaType != img.MediaType || string(m.Raw) != string(img.Raw) {
			t.Errorf("tag %s: %s of type %q, %v", tag, m.Digest, m.MediaType, err)
		}
	}
	for _, img := range []*image{e.plain, e.index, e.platform, e.untyped} {
		m, _, err := s.Manifest(t.Context(), team, img.Digest, dead)
		if err != nil || m.MediaType != img.MediaType || string(m.Raw) != string(img.Raw) {
			t.Errorf("manifest of type %q: %+v, %v", img.MediaType, m, err)
		}
	}
	for i, o := range e.layers {
		if _, err := s.Holds(t.Context(), team, o.Digest, never); err != nil {
			t.Errorf("layer %d does not belong to the repository: %v", i, err)
		}
		before := len(o.Requests())
		if state := pull(t, s, o); state != Hit || len(o.Requests()) > before {
			t.Errorf("layer %d: %s", i, state)
		}
	}
	if _, _, err := s.Manifest(t.Context(), other, e.plain.Digest, dead); err == nil {
		t.Error("a manifest is served for a repository that does not contain it")
	}
	if _, err := s.Holds(t.Context(), other, e.layers[0].Digest, never); err == nil {
		t.Error("a layer is served for a repository that does not contain it")
	}
}

// checkKept checks that the order of eviction and the pins are as they were.
func (e *edge) checkKept(t *testing.T, s *Store) {
	t.Helper()
	loaded(t, s)
	if got := s.items.Digests(); !slices.Equal(got, e.order) {
		t.Errorf("the order of eviction is\n%s, want\n%s", strings.Join(names(got), "\n"), strings.Join(names(e.order), "\n"))
	}
	for _, d := range []digest.Digest{e.index.Digest, e.platform.Digest, e.layers[1].Digest} {
		if !s.pins.Holds(d) {
			t.Errorf("%s is no longer pinned", d)
		}
	}
}

func names(digests []digest.Digest) []string {
	var all []string
	for _, d := range digests {
		all = append(all, d.String())
	}
	return all
}

func silent(*image) Ask { return dead }

// confirming returns an upstream that serves only a tag, and the manifest of the tag.
func confirming(img *image) Ask {
	return func(ctx context.Context, reference string, head bool) (Manifest, error) {
		if strings.Contains(reference, ":") {
			return dead(ctx, reference, head)
		}
		return img.ask(ctx, reference, head)
	}
}

// flipBit returns a function that flips one bit of a file.
func flipBit(name string, bit int64) func(dir string) error {
	return func(dir string) error {
		path := filepath.Join(dir, name)
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		raw[bit/8] ^= 1 << (bit % 8)
		return os.WriteFile(path, raw, 0o600)
	}
}

func eachFile(pattern string, damage func(path string) error) func(dir string) error {
	return func(dir string) error {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if len(paths) == 0 {
			err = errors.Join(err, fmt.Errorf("there is no %s", pattern))
		}
		for _, path := range paths {
			err = errors.Join(err, damage(path))
		}
		return err
	}
}

func truncate(n int64) func(string) error {
	return func(path string) error { return os.Truncate(path, n) }
}

func noise(path string) error {
	return os.WriteFile(path, bytes.Repeat([]byte("noise"), 100), 0o600)
}

// damages returns what may have happened to the folder of an index.
func damages() map[string]func(dir string) error {
	return map[string]func(dir string) error{
		"nothing":                 func(string) error { return nil },
		"deleted":                 os.RemoveAll,
		"emptied":                 func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) },
		"a file in its place":     func(dir string) error { return errors.Join(os.RemoveAll(dir), noise(dir)) },
		"no list of tables":       eachFile("MANIFEST", os.Remove),
		"a torn list of tables":   eachFile("MANIFEST", truncate(20)),
		"an empty list of tables": eachFile("MANIFEST", truncate(0)),
		"a list of noise":         eachFile("MANIFEST", noise),
		"no tables":               eachFile("*.sst", os.Remove),
		"empty tables":            eachFile("*.sst", truncate(0)),
		"torn tables":             eachFile("*.sst", truncate(100)),
		"tables of noise":         eachFile("*.sst", noise),
		"a log of noise":          eachFile("*.vlog", noise),
		"keys of noise":           eachFile("KEYREGISTRY", noise),
		"statistics of noise":     eachFile("DISCARD", noise),
		"nothing but noise":       eachFile("*", noise),
	}
}

func TestLostIndexIsRebuilt(t *testing.T) {
	for _, with := range []string{"snapshot", "files only"} {
		for name, damage := range damages() {
			t.Run(with+"/"+name, func(t *testing.T) {
				t.Parallel()
				e := newEdge()
				dir := t.TempDir()
				s := openStore(t, dir, edgeOptions)
				e.fill(t, s)
				closeStore(t, s)
				if err := damage(s.folder.Index()); err != nil {
					t.Fatal(err)
				}
				ask := silent
				if with == "files only" {
					ask = confirming
					if err := os.Remove(s.folder.Snapshot()); err != nil {
						t.Fatal(err)
					}
				}
				s = openStore(t, dir, edgeOptions)
				if with == "snapshot" {
					e.checkKept(t, s)
				}
				e.check(t, s, ask)
				closeStore(t, s)

				s = openStore(t, dir, edgeOptions) // the rebuilt index survives a restart
				e.check(t, s, silent)
			})
		}
	}
}

func TestStoreServesHitsBeforeALostIndexIsRebuilt(t *testing.T) {
	e := newEdge()
	dir := t.TempDir()
	s := openStore(t, dir, edgeOptions)
	e.fill(t, s)
	closeStore(t, s)
	if err := os.RemoveAll(s.folder.Index()); err != nil {
		t.Fatal(err)
	}
	e.check(t, openIdle(t, dir, edgeOptions), silent)
}

func TestIndexWithAFlippedBitIsRebuilt(t *testing.T) {
	const flips = 8 // in each file
	e := newEdge()
	dir := t.TempDir()
	s := openStore(t, dir, edgeOptions)
	e.fill(t, s)
	closeStore(t, s)
	keep := t.TempDir()
	whole := filepath.Join(keep, "index")
	if err := os.CopyFS(whole, os.DirFS(s.folder.Index())); err != nil {
		t.Fatal(err)
	}
	for _, path := range files(t, whole) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range min(flips, info.Size()) {
			bit := info.Size() * 8 * (2*i + 1) / (2 * flips)
			name := filepath.Base(path)
			t.Run(fmt.Sprint(name, " ", bit), func(t *testing.T) {
				if err := errors.Join(
					os.RemoveAll(s.folder.Index()),
					os.CopyFS(s.folder.Index(), os.DirFS(whole)),
					flipBit(name, bit)(s.folder.Index()),
				); err != nil {
					t.Fatal(err)
				}
				s := openStore(t, dir, edgeOptions)
				e.check(t, s, silent)
				loaded(t, s)
				if !s.pins.Holds(e.layers[1].Digest) {
					t.Error("the pinned layer is no longer pinned")
				}
			})
		}
	}
}

// The killed process had not written its latest records to tables. Their log is damaged.
func TestKilledProcessLosesNothingInItsSnapshot(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"nothing":      func(string) error { return nil },
		"no log":       eachFile("*.mem", os.Remove),
		"an empty log": eachFile("*.mem", truncate(0)),
		"a torn log":   eachFile("*.mem", truncate(1000)),
		"noise":        eachFile("*.mem", noise),
		"a bit":        flipBit("00001.mem", 8*500),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEdge()
			dir := t.TempDir()
			s := openStore(t, dir, edgeOptions)
			e.fill(t, s)
			s.recordUses()
			if err := s.writeSnapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
			killed := filepath.Join(t.TempDir(), "index")
			if err := os.CopyFS(killed, os.DirFS(s.folder.Index())); err != nil {
				t.Fatal(err)
			}
			snapshot, err := os.ReadFile(s.folder.Snapshot())
			if err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
			if err := errors.Join(
				os.RemoveAll(s.folder.Index()),
				os.Rename(killed, s.folder.Index()),
				os.WriteFile(s.folder.Snapshot(), snapshot, 0o600),
				damage(s.folder.Index()),
			); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, dir, edgeOptions)
			e.checkKept(t, s)
			e.check(t, s, silent)
		})
	}
}

func TestLostIndexIsFollowedByAFullScrub(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, edgeOptions)
	e := newEdge()
	e.fill(t, s)
	closeStore(t, s)
	if pos := scrubPositionOf(t, dir); pos.AtOnce {
		t.Error("a new folder is scrubbed at once")
	}
	if err := os.RemoveAll(s.folder.Index()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // this is recorded until the scrub is done
		closeStore(t, openStore(t, dir, edgeOptions))
		if pos := scrubPositionOf(t, dir); !pos.AtOnce || pos.After != "" {
			t.Errorf("the scrub is at %+v", pos)
		}
	}
	flip(t, s, e.layers[0].Digest, 0)
	scrubbing := edgeOptions
	scrubbing.ScrubEvery = time.Hour
	s = openStore(t, dir, scrubbing)
	eventually(t, "the scrub is over", func() bool { return !s.index.ScrubPosition().AtOnce })
	if _, err := s.Stat(e.layers[0].Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a damaged blob was not removed: %v", err)
	}
}

// The records of manifests come from a snapshot, so they have no sizes.
func TestScrubKeepsManifestsWhoseRecordsAreIncomplete(t *testing.T) {
	s := openStore(t, t.TempDir(), edgeOptions)
	e := newEdge()
	e.fill(t, s)
	for _, img := range []*image{e.plain, e.index, e.platform, e.untyped} {
		if err := s.index.PutBlob(img.Digest, records.Blob{MediaType: img.MediaType}); err != nil {
			t.Fatal(err)
		}
	}
	scrubbed(t, s, int64(4+len(e.layers)), 0)
	loaded(t, s)
	if err := s.index.SetRebuilding(true); err != nil {
		t.Fatal(err)
	}
	s.continueRebuild(s.tasks.Context())
	e.check(t, s, silent)
}

// An index cannot be rebuilt on a failing disk. Pins protect their blobs nevertheless, and the
// rebuild is tried again later.
func TestRebuildIsRetriedAfterADiskFailure(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Tags: freshness})
	layer := filltest.New(10_000, 1)
	img := newImage("a", layer)
	pullTag(t, s, team, "v1", img, layer)
	if err := s.Pin(team, "v1"); err != nil {
		t.Fatal(err)
	}
	if err := s.index.PutBlob(img.Digest, records.Blob{MediaType: img.MediaType}); err != nil { // as a snapshot restores it
		t.Fatal(err)
	}
	if err := s.index.SetRebuilding(true); err != nil {
		t.Fatal(err)
	}

	s.health.Note(unix.EIO)
	s.continueRebuild(s.tasks.Context())
	s.pins.RefreshOrWarn()
	if _, known := s.index.Children(img.Digest); known || !s.pins.Holds(layer.Digest) {
		t.Errorf("while the disk fails: the record is complete: %t, the layer is pinned: %t", known, s.pins.Holds(layer.Digest))
	}
	s.health.Recovered(s.health.Failures())
	if s.rebuildNotBefore.IsZero() {
		t.Error("the rebuild would be tried again at once")
	}
	s.rebuildNotBefore = time.Now().Add(time.Hour)
	s.continueRebuild(s.tasks.Context())
	if _, known := s.index.Children(img.Digest); known {
		t.Error("the rebuild was tried again before it was due")
	}
	s.rebuildNotBefore = time.Time{}
	s.continueRebuild(s.tasks.Context())
	if _, known := s.index.Children(img.Digest); !known || s.index.Rebuilding() {
		t.Error("the index was not rebuilt")
	}
}

func TestStoreOpensIfItsIndexCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, Options{Tags: freshness})
	layer := filltest.New(10_000, 1)
	img := newImage("a", layer)
	pullTag(t, s, team, "v1", img, layer)
	closeStore(t, s)
	opts := failing(false, func(s disk.Step) bool { return s.Op == disk.OpCreate && filepath.Base(s.Path) == "index.opening" })
	opts.Tags = freshness
	s = openStore(t, dir, opts)
	if m, _, err := s.Tag(t.Context(), team, "v1", dead); err != nil || m.Digest != img.Digest {
		t.Errorf("the tag, without an upstream: %s, %v", m.Digest, err) // the snapshot has it
	}
	if state := pull(t, s, layer); state != Hit {
		t.Errorf("its layer: %s", state)
	}
}

// The input of lifecycle rules, and their verdicts, are as they were before the index was lost.
func TestRebuiltIndexHasWhatLifecycleRulesNeed(t *testing.T) {
	e := newEdge()
	signature := newDocument(ocispec.MediaTypeImageManifest,
		fmt.Sprintf(`{"mediaType": %q, "layers": [], "subject": {"digest": %q}}`, ocispec.MediaTypeImageManifest, e.plain.Digest))
	expired := []Verdict{{Repository: team, Digest: e.untyped.Digest, Expiry: Expiry{Since: time.Unix(1_700_000_000, 0).UTC(), Rule: 2, Source: "ecr"}}}
	dir := t.TempDir()
	s := openStore(t, dir, edgeOptions)
	e.fill(t, s)
	pullDigest(t, s, team, signature)
	if err := s.Expire(expired); err != nil {
		t.Fatal(err)
	}
	want := holdings(t, s)
	closeStore(t, s)
	if err := os.RemoveAll(s.folder.Index()); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, edgeOptions)
	// The time of the file replaces the time when the blob was fetched.
	if diff := cmp.Diff(want, holdings(t, s), cmpopts.EquateApproxTime(time.Minute)); diff != "" {
		t.Errorf("holdings (-want +got):\n%s", diff)
	}
	if got, err := s.Verdicts(); err != nil || !cmp.Equal(got, expired) {
		t.Errorf("verdicts: %v, %v", got, err)
	}
	if d, first, _ := s.items.First(); d != e.untyped.Digest || !first {
		t.Errorf("%s is evicted first, expired: %t", d, first)
	}
}

func holdings(t *testing.T, s *Store) map[Repository][]Holding {
	t.Helper()
	all, err := s.Holdings()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// scrubPositionOf reads the position that a closed store left.
func scrubPositionOf(t *testing.T, dir string) records.ScrubPosition {
	t.Helper()
	s := openStore(t, dir, edgeOptions)
	defer closeStore(t, s)
	return s.index.ScrubPosition()
}
