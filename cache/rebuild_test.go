package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/larder-registry/larder/cache/cachetest"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/fill/filltest"
	"github.com/larder-registry/larder/cache/records"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

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

func TestLostIndexIsRebuilt(t *testing.T) {
	for _, with := range []string{"snapshot", "files only"} {
		damages := cachetest.IndexDamages()
		damages["nothing"] = func(string) error { return nil }
		for name, damage := range damages {
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
				if with == "files only" {
					if err := os.Remove(s.folder.Snapshot()); err != nil {
						t.Fatal(err)
					}
				}
				s = openStore(t, dir, edgeOptions)
				if with == "snapshot" {
					e.checkKept(t, s)
				} else {
					e.confirm(t, s)
				}
				e.check(t, s)
				closeStore(t, s)

				s = openStore(t, dir, edgeOptions) // the rebuilt index survives a restart
				e.check(t, s)
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
	e.check(t, openIdle(t, dir, edgeOptions))
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
				e.check(t, s)
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
		"no log":       cachetest.EachFile("*.mem", os.Remove),
		"an empty log": cachetest.EachFile("*.mem", cachetest.Truncate(0)),
		"a torn log":   cachetest.EachFile("*.mem", cachetest.Truncate(1000)),
		"noise":        cachetest.EachFile("*.mem", cachetest.Noise),
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
			e.check(t, s)
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
	e.check(t, s)
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
