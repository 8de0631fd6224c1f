package cache

import (
	"context"
	"io/fs"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/records"
)

// An index that was lost is rebuilt from its snapshot, which has of a manifest only its type,
// or nothing at all. The rest is in the manifest's file.

// manifestMode tells the files of manifests from those of blobs.
const manifestMode fs.FileMode = 0o600

// continueRebuild adds to an index that was lost what the files tell. If it fails, as on a
// full disk, it tries again at a later tick, and at the next start.
func (s *Store) continueRebuild(ctx context.Context) {
	begin := time.Now()
	if !s.index.Rebuilding() || begin.Before(s.rebuildNotBefore) {
		return
	}
	err := s.folder.EachBlob("", func(d digest.Digest, info fs.FileInfo) error {
		if err := s.restoreRecord(d, info); err != nil {
			return err
		}
		return ctx.Err()
	})
	if err == nil {
		err = s.index.SetRebuilding(false)
	}
	s.rebuildNotBefore = time.Now().Add(snapshotShare * time.Since(begin))
	switch {
	case err == nil && s.rebuildFailed:
		s.log.Info("the index has been rebuilt")
		s.pins.RefreshOrWarn() // pins did not know what manifests name
	case err != nil && ctx.Err() == nil && !s.rebuildFailed:
		s.rebuildFailed = true
		s.blobs.Trouble(slog.LevelError, "the index could not be rebuilt; that is tried again", err)
	}
}

// repairIndex replaces an index whose files were removed or changed while it is in use.
func (s *Store) repairIndex(ctx context.Context, suspicious bool) {
	if !s.replaceDamaged(ctx, suspicious) {
		return
	}
	s.rebuildNotBefore = time.Time{}
	s.continueRebuild(ctx)
	s.pins.RefreshOrWarn()
	if err := s.expireAgain(); err != nil {
		s.blobs.Trouble(slog.LevelWarn, "expired images are evicted like all others until lifecycle rules are applied again", err)
	}
}

// replaceDamaged is [records.Index.Repair].
func (s *Store) replaceDamaged(ctx context.Context, suspicious bool) (replaced bool) {
	err := s.reserving(func(reserve records.Reserve) (err error) {
		replaced, err = s.index.Repair(ctx, suspicious, reserve)
		return err
	})
	if err != nil {
		s.log.Error("the index was damaged while it is in use, and cannot be made again before the next start", "error", err)
	}
	return replaced
}

// restoreRecord adds the record of a manifest on disk that the index does not know.
func (s *Store) restoreRecord(d digest.Digest, info fs.FileInfo) error {
	if info.Mode().Perm() != manifestMode || info.Size() > MaxManifest {
		return nil
	}
	known, err := s.index.Blob(d)
	if err == nil && known.Size > 0 {
		return nil
	}
	_, rec, err := manifest.ReadRecord(s.folder.Blob(d), d)
	switch {
	case err == nil:
		return s.index.PutBlob(d, rec)
	case known.MediaType != "":
		s.log.Warn("a manifest in the cache cannot be read; it is fetched again", "digest", d, "error", err)
		return s.index.RemoveBlob(d) // it has no children
	}
	return nil // a blob: a umask may take rights from other files too
}
