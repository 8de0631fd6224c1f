package records_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
)

func TestSnapshotContainsWhatFilesDoNotShow(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fill(t, s.Index)
	must(t,
		s.PutBlob(layer, records.Blob{Size: 1, Fetched: now}), // its file shows this
		s.PutScrubPosition(records.ScrubPosition{Begun: now}),
		s.PutTouch(team, manifest, now),
	)
	s.save(t)
	s.close(t)
	must(t, os.RemoveAll(s.folder.Index()))

	s = open(t, dir)
	if diff := cmp.Diff(everything(), read(t, s.Index)); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Blob(layer); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the record of a layer is in the snapshot: %v", err)
	}
	if rec, err := s.Blob(manifest); err != nil || rec.IsManifest() || !cmp.Equal(rec, records.Blob{MediaType: rec.MediaType}) {
		t.Errorf("the record of a manifest has more than the media type: %+v, %v", rec, err)
	}
	if touches, err := s.Touches(); err != nil || len(touches) > 0 {
		t.Errorf("touches: %v, %v", touches, err)
	}
}

func TestSnapshotIsWrittenOnlyAfterAChange(t *testing.T) {
	s := open(t, t.TempDir())
	saves := func() bool {
		t.Helper()
		reserved := int64(0)
		must(t, s.Save(t.Context(), func(_ context.Context, n int64) error { reserved += n; return nil }))
		if reserved == 0 {
			return false
		}
		if info, err := os.Stat(s.folder.Snapshot()); err != nil || info.Size() != reserved {
			t.Errorf("%d bytes were reserved for %v, %v", reserved, info, err)
		}
		return true
	}
	if !saves() {
		t.Error("there is no snapshot of a new index")
	}
	fill(t, s.Index)
	if !saves() {
		t.Error("there is no snapshot after a change")
	}
	must(t, s.PutScrubPosition(records.ScrubPosition{Begun: now}), s.PutTouch(team, manifest, now))
	if saves() {
		t.Error("a snapshot was written for records that it does not contain")
	}
}

// FORMAT.md says: 70 bytes a blob, including its part of a tag and of the name of a repository.
func TestSnapshotIsSmall(t *testing.T) {
	const n, perImage = 5000, 8
	s := open(t, t.TempDir())
	uses := make(map[digest.Digest]time.Time)
	for image := range n / perImage {
		repo := records.Repository{
			Upstream: "123456789012.dkr.ecr.us-east-1.amazonaws.com",
			Name:     fmt.Sprintf("team-%d/app-%d", image%50, image),
		}
		members := make(map[digest.Digest]records.Member)
		var first digest.Digest
		for i := range perImage {
			d := digest.FromBytes(binary.BigEndian.AppendUint64(nil, uint64(image*perImage+i)))
			if i == 0 {
				first = d
			}
			members[d] = records.Member{Size: 4096, Manifest: i == 0, Proven: records.Proven}
			uses[d] = now.Add(-time.Duration(image) * time.Minute)
		}
		must(t,
			s.PutManifest(repo, first, records.Blob{Size: 4096, MediaType: "application/vnd.oci.image.manifest.v1+json"}, members),
			s.PutTag(repo, fmt.Sprint(image), records.Tag{Digest: first, Checked: now}),
		)
	}
	must(t, s.PutUses(uses))
	s.save(t)
	info, err := os.Stat(s.folder.Snapshot())
	must(t, err)
	if most := int64(n * 70); info.Size() > most {
		t.Errorf("%d blobs take %d bytes, want at most %d", n, info.Size(), most)
	}
}

func TestDamagedSnapshotIsIgnored(t *testing.T) {
	s := open(t, t.TempDir())
	fill(t, s.Index)
	s.save(t)
	whole, err := os.ReadFile(s.folder.Snapshot())
	must(t, err)
	const header = "larder-snapshot 1\n"
	damaged := map[string][]byte{
		"empty":              {},
		"noise":              bytes.Repeat([]byte("noise"), 100),
		"another version":    append([]byte("larder-snapshot 2\n"), whole[len(header):]...),
		"an additional byte": append(bytes.Clone(whole), 0),
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
			must(t, os.WriteFile(dir+"/index.snapshot", content, 0o600))
			var log bytes.Buffer
			s := openWith(t, dir, disk.Steps{}, slog.New(slog.NewTextHandler(&log, nil)))
			if diff := cmp.Diff(read(t, open(t, t.TempDir()).Index), read(t, s.Index)); diff != "" {
				t.Errorf("the snapshot was used: %s", diff)
			}
			if !strings.Contains(log.String(), "ignored") {
				t.Errorf("the log says %q", &log)
			}
			s.save(t) // so that the folder passes its check
		})
	}
}

func TestSnapshotIsKeptUntilANewOneIsWritten(t *testing.T) {
	for _, failing := range []disk.Op{disk.OpCreate, disk.OpWrite, disk.OpSync, disk.OpRename} {
		t.Run(string(failing), func(t *testing.T) {
			dir := t.TempDir()
			fail := false
			s := openWith(t, dir, disk.Steps{Around: func(step disk.Step, take func() error) error {
				if fail && step.Op == failing {
					return unix.EINVAL
				}
				return take()
			}}, discard)
			fill(t, s.Index)
			s.save(t)
			must(t, s.RemoveTag(team, "v1"))
			fail = true
			if err := s.Save(t.Context(), unbounded); !errors.Is(err, unix.EINVAL) {
				t.Errorf("saved: %v", err)
			}
			fail = false
			if _, err := os.Stat(s.folder.NewSnapshot()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the unfinished snapshot is left: %v", err)
			}
			if diff := cmp.Diff(everything(), readSnapshot(t, s.folder.Snapshot())); diff != "" {
				t.Error(diff)
			}
			s.save(t)
			want := everything()
			delete(want.Tags, team.Image("v1"))
			want.Pending = nil
			if diff := cmp.Diff(want, readSnapshot(t, s.folder.Snapshot())); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSnapshotIsNotWrittenWithoutSpace(t *testing.T) {
	s := open(t, t.TempDir())
	fill(t, s.Index)
	full := func(context.Context, int64) error { return unix.ENOSPC }
	if err := s.Save(t.Context(), full); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("saved: %v", err)
	}
	for _, path := range []string{s.folder.Snapshot(), s.folder.NewSnapshot()} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestSaveEndsWithItsContext(t *testing.T) {
	s := open(t, t.TempDir())
	fill(t, s.Index)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Save(ctx, unbounded); !errors.Is(err, context.Canceled) {
		t.Errorf("saved: %v", err)
	}
}

// readSnapshot returns the contents of an index that is restored from a snapshot.
func readSnapshot(t *testing.T, path string) contents {
	t.Helper()
	raw, err := os.ReadFile(path)
	must(t, err)
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/index.snapshot", raw, 0o600))
	return read(t, open(t, dir).Index)
}
