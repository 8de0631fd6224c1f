package records

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/opencontainers/go-digest"
)

// FuzzSnapshot is white-box because it skips the checksum, which would reject nearly every
// input.
func FuzzSnapshot(f *testing.F) {
	f.Add(wholeSnapshot(f))
	f.Add([]byte(snapshotHeader + "\x01\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		err := newDecoder(bytes.NewReader(raw)).read(func(e entry) error {
			if len(e.key) == 0 || len(e.key) > maxKey {
				t.Errorf("a key of %d bytes", len(e.key))
			}
			d, isUse := strings.CutPrefix(string(e.key), usedPrefix)
			if isUse && digest.Digest(d).Validate() != nil && strings.HasPrefix(d, "sha") {
				t.Errorf("%q is not a digest", d)
			}
			return nil
		})
		if err == nil && !bytes.HasPrefix(raw, []byte(snapshotHeader)) {
			t.Error("a snapshot without a header was read")
		}
		if err := readSnapshot(bytes.NewReader(raw), func(entry) error { return nil }); err != nil && !errors.Is(err, errSnapshot) {
			t.Error(err)
		}
	})
}

func wholeSnapshot(f *testing.F) []byte {
	f.Helper()
	log := slog.New(slog.DiscardHandler)
	folder, err := disk.Open(f.TempDir(), disk.Steps{}, log)
	if err != nil {
		f.Fatal(err)
	}
	defer folder.Close()
	ix, err := Open(folder, disk.NewHealth(log), 0, log)
	if err != nil {
		f.Fatal(err)
	}
	repo, d := Repository{"registry.test", "team/app"}, digest.FromString("a")
	now := time.Unix(1_700_000_000, 0)
	if err := errors.Join(
		ix.PutManifest(repo, d, Blob{Size: 1, MediaType: "m"}, map[digest.Digest]Member{d: {Size: 1, Manifest: true}}),
		ix.PutUses(map[digest.Digest]time.Time{d: now}),
		ix.PutTag(repo, "v1", Tag{Digest: d, Checked: now}),
		ix.PutPin(Pin{repo, "v1"}, PinRecord{Since: now}),
		ix.ReplaceVerdicts([]Verdict{{repo, d, Expiry{Since: now, Rule: 1, Source: "ecr"}}}),
		ix.Save(f.Context(), func(context.Context, int64) error { return nil }),
		ix.Close(),
	); err != nil {
		f.Fatal(err)
	}
	raw, err := os.ReadFile(folder.Snapshot())
	if err != nil {
		f.Fatal(err)
	}
	return raw
}
