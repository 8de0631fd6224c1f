package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// memoryIndex is an index that lasts as long as the test.
func memoryIndex(t testing.TB) *index {
	t.Helper()
	db, err := badger.Open(indexOptions("", slog.New(slog.DiscardHandler)).WithInMemory(true))
	if err != nil {
		t.Fatal(err)
	}
	ix := &index{db: db, volatile: true}
	t.Cleanup(func() {
		if err := ix.close(); err != nil {
			t.Error(err)
		}
	})
	return ix
}

func notCancelled() error { return nil }

// records reads all of an index.
func records(t *testing.T, ix *index) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := ix.each("", func(item *badger.Item) error {
		return item.Value(func(raw []byte) error {
			all[string(item.Key())] = string(raw)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// everyKind has each kind of record, with every field set.
func everyKind() []entry {
	now := time.Unix(1_700_000_000, 0).UTC()
	layer, manifest := digest.FromString("layer"), digest.SHA512.FromString("manifest")
	pinned := Pin{team, "v1"}
	return []entry{
		{memberKey(team, layer), memberRecord{Size: -1, Manifest: true}},
		{memberKey(other, layer), memberRecord{Size: 1 << 40}},
		{memberKey(team, manifest), memberRecord{Size: 5, Manifest: true}},
		{usedKey(layer), now.Unix()},
		{usedKey(digest.FromString("unknown otherwise")), int64(1)},
		{tagKey(team, "v1"), tagRecord{Digest: manifest, Checked: now}},
		{tagKey(Repository{"localhost:5000", "a/b"}, "v2"), tagRecord{Digest: layer, Checked: now}},
		{pinKey(pinned), pinRecord{Since: now}},
		{verdictKey(team, manifest), Expiry{Since: now, Rule: 3, Source: "ecr"}},
		{blobKey(manifest), blobRecord{MediaType: ocispec.MediaTypeImageIndex}},
	}
}

func TestSnapshotHasAllThatFilesCannotTell(t *testing.T) {
	from, to := memoryIndex(t), memoryIndex(t)
	if err := from.put(everyKind()...); err != nil {
		t.Fatal(err)
	}
	want := records(t, from)
	if err := errors.Join(
		from.put(entry{blobKey(digest.FromString("layer")), blobRecord{Size: 1}}), // its file tells
		from.note(entry{scrubKey, scrubPosition{}}),
	); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := from.writeSnapshot(&file, 1, notCancelled); err != nil {
		t.Fatal(err)
	}
	if err := to.load(bytes.NewReader(file.Bytes())); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, records(t, to)); diff != "" {
		t.Error(diff)
	}
}

// TestSnapshotIsSmall holds FORMAT.md to its word: 60 bytes a blob, with its part
// of a tag and of a repository's name.
func TestSnapshotIsSmall(t *testing.T) {
	const n = 5000
	ix := memoryIndex(t)
	var entries []entry
	for i := range n {
		entries = append(entries, scaleRecords(i, time.Now())...)
	}
	if err := ix.put(entries...); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := ix.writeSnapshot(&file, 1, notCancelled); err != nil {
		t.Fatal(err)
	}
	if most := n * 60; file.Len() > most {
		t.Errorf("%d blobs take %d bytes, want %d at most", n, file.Len(), most)
	}
}

// wholeSnapshot is one of everyKind.
func wholeSnapshot(t testing.TB) []byte {
	t.Helper()
	ix := memoryIndex(t)
	if err := ix.put(everyKind()...); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := ix.writeSnapshot(&file, 7, notCancelled); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func TestSnapshotThatIsNotWholeIsIgnored(t *testing.T) {
	whole := wholeSnapshot(t)
	damaged := map[string][]byte{
		"empty":           {},
		"noise":           bytes.Repeat([]byte("noise"), 100),
		"another version": append([]byte("larder-snapshot 2\n"), whole[len(snapshotHeader):]...),
		"something more":  append(bytes.Clone(whole), 0),
	}
	for i := range 16 {
		at := len(whole) * i / 16
		damaged[fmt.Sprint("torn at ", at)] = whole[:at]
		flipped := bytes.Clone(whole)
		flipped[at] ^= 1 << (i % 8)
		damaged[fmt.Sprint("flipped at ", at)] = flipped
	}
	for name, content := range damaged {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := disk.At(dir)
			if err := os.WriteFile(l.Snapshot(), content, 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			ix, err := openIndex(l, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			all := records(t, ix)
			if err := ix.close(); err != nil {
				t.Error(err)
			}
			delete(all, string(formatKey))
			if len(all) > 0 {
				t.Errorf("it was believed: %v", all)
			}
			if !strings.Contains(log.String(), "ignored") {
				t.Errorf("the log says %q", &log)
			}
		})
	}
}

func FuzzSnapshot(f *testing.F) {
	f.Add(wholeSnapshot(f))
	f.Add([]byte(snapshotHeader + "\x01\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		// The checksum would keep nearly everything out.
		r := newSnapshotReader(bytes.NewReader(raw))
		err := r.read(func(e entry) error {
			if len(e.key) == 0 || len(e.key) > maxSnapshotKey {
				t.Errorf("a key of %d bytes", len(e.key))
			}
			d, isUse := strings.CutPrefix(string(e.key), usedPrefix)
			if isUse && digest.Digest(d).Validate() != nil && strings.HasPrefix(d, "sha") {
				t.Errorf("%q is no digest", d)
			}
			return nil
		})
		if err == nil && !bytes.HasPrefix(raw, []byte(snapshotHeader)) {
			t.Error("read without a header")
		}
		if err := readSnapshot(bytes.NewReader(raw), func(entry) error { return nil }); err != nil && !errors.Is(err, errSnapshot) {
			t.Error(err)
		}
	})
}

func TestSnapshotIsWrittenAtMostAMinuteAfterAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), edgeOptions)
		img, o := newImage("a"), newOrigin(1000, 1)
		<-s.scanned
		written := func() fs.FileInfo {
			t.Helper()
			pass(time.Minute)
			synctest.Wait()
			info, err := os.Stat(s.folder.Snapshot())
			if err != nil {
				t.Fatal(err)
			}
			return info
		}
		last := written() // what was there at the start
		for name, change := range map[string]func(){
			"a tag":  func() { resolve(t, s, img.ask, Miss, img) },
			"a blob": func() { pull(t, s, o); settle(s) },
		} {
			change()
			next := written()
			if os.SameFile(last, next) {
				t.Errorf("after %s there was no new snapshot", name)
			}
			if last = next; !os.SameFile(last, written()) {
				t.Errorf("after %s another one was written for nothing", name)
			}
		}
		pull(t, s, o) // its access time changes
		if next := written(); os.SameFile(last, next) {
			t.Error("after a hit there was no new snapshot")
		}
	})
}

// TestSnapshotStaysUntilThereIsANewOne has each step of the writing fail.
func TestSnapshotStaysUntilThereIsANewOne(t *testing.T) {
	for _, failing := range []disk.Op{disk.OpCreate, disk.OpWrite, disk.OpSync, disk.OpRename, disk.OpSyncDir} {
		t.Run(string(failing), func(t *testing.T) {
			dir := t.TempDir()
			fail := false
			opts := edgeOptions
			var log bytes.Buffer
			opts.Log = slog.New(slog.NewTextHandler(&log, nil))
			opts.steps.Around = func(s disk.Step, take func() error) error {
				if fail && s.Op == failing {
					return unix.EINVAL // EIO would have the disk be left alone
				}
				return take()
			}
			s := openStore(t, dir, opts)
			<-s.scanned
			e := newEdge()
			e.fill(t, s)
			s.saveSnapshot(t.Context())
			if err := s.Unpin(team, "index"); err != nil { // a change
				t.Fatal(err)
			}
			fail = true
			for range 2 {
				s.saveSnapshot(t.Context())
			}
			fail = false
			if n := strings.Count(log.String(), "could not be written"); n != 1 {
				t.Errorf("said %d times", n)
			}
			if _, err := os.Stat(s.folder.NewSnapshot()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("what was begun is left: %v", err)
			}
			kept := make(map[string]any)
			f, err := os.Open(s.folder.Snapshot())
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := readSnapshot(f, func(e entry) error { kept[string(e.key)] = e.value; return nil }); err != nil {
				t.Error(err)
			}
			if kept[string(tagKey(team, "plain"))] == nil {
				t.Errorf("kept: %v", maps.Keys(kept))
			}
			checkCharges(t, s)
		})
	}
}

func TestSnapshotCountsAndMakesRoom(t *testing.T) {
	s := openStore(t, t.TempDir(), bounded)
	var all []*origin
	for i := range 8 {
		all = append(all, newOrigin(1<<20, uint64(i)))
	}
	for _, o := range all {
		pull(t, s, o)
		settle(s)
	}
	// Long names, so that it does not fit beside the blobs.
	var entries []entry
	for i := range 60 {
		repo := Repository{"registry.example", strings.Repeat(fmt.Sprint(i%10), 60_000) + fmt.Sprint(i)}
		entries = append(entries, entry{tagKey(repo, "v"), tagRecord{Digest: all[0].digest, Checked: time.Now()}})
	}
	if err := s.index.put(entries...); err != nil {
		t.Fatal(err)
	}
	s.saveSnapshot(t.Context())
	info, err := os.Stat(s.folder.Snapshot())
	if err != nil || info.Size() < 3<<20 {
		t.Fatalf("the snapshot: %v, %v", info, err)
	}
	if n := usage(t, s); n > bounded.MaxSize {
		t.Errorf("the folder takes %d bytes of %d", n, bounded.MaxSize)
	}
	used, _ := s.space.Account()
	charged := s.space.Size() - used
	if charged < info.Size()+disk.BallastSize {
		t.Errorf("%d bytes are charged beside the blobs", charged)
	}
}

func TestSnapshotIsTakenIntoMemoryOnAFullDisk(t *testing.T) {
	disk := fullDisk(t, 200<<20, 110<<20)
	dir := filepath.Join(disk, "cache")
	s := openStore(t, dir, edgeOptions)
	e := newEdge()
	e.fill(t, s)
	closeStore(t, s)
	if err := os.Remove(s.folder.Ballast()); err != nil {
		t.Fatal(err)
	}
	fillUp(t, disk)
	s = openStore(t, dir, edgeOptions)
	if !s.index.volatile {
		t.Fatal("the index was opened on a full disk")
	}
	e.check(t, s, silent)
	if err := errors.Join(os.Remove(filepath.Join(disk, "more")), os.Truncate(filepath.Join(disk, "hog"), 0)); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = openStore(t, dir, edgeOptions) // it was not written over
	e.checkKept(t, s)
}
