package blobs

import (
	"context"
	"errors"
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
)

// Load finds out what is in the folder, and when it was last used: by the index, or by the
// file if the index does not tell. Hits are served meanwhile. It skips what cannot be read,
// and returns that error. Then it calls next, and what waits for Loaded goes on.
func (s *Store) Load(ctx context.Context, next func()) error {
	defer close(s.loaded)
	all, err := Complete(ctx, s.Folder)
	if ctx.Err() != nil {
		s.Items.Load(nil)
		return ctx.Err()
	}
	partials, unread := Partials(s.Folder)
	err = errors.Join(err, unread, describe(all, s.Index))
	before := s.Items.Bytes()
	s.Items.Load(append(all, partials...))
	s.Space.Add(s.Items.Bytes() - before)
	err = errors.Join(err, s.Space.Measure())
	next()
	return err
}

// Complete lists the complete blobs in a folder.
func Complete(ctx context.Context, f *disk.Folder) ([]recency.Found, error) {
	var all []recency.Found
	err := f.EachBlob("", func(d digest.Digest, info fs.FileInfo) error {
		all = append(all, recency.NewFound(d, recency.Item{Bytes: disk.ChargeOf(info)}, info.ModTime().Unix()))
		return ctx.Err()
	})
	return all, err
}

// Partials lists the partial downloads in a folder.
func Partials(f *disk.Folder) ([]recency.Found, error) {
	var all []recency.Found
	err := f.EachPartial(func(d digest.Digest, info fs.FileInfo) error {
		all = append(all, recency.NewFound(d, recency.Item{Bytes: disk.Charge(info.Size()), Partial: true}, info.ModTime().Unix()))
		return nil
	})
	return all, err
}

// describe adds to what a scan found what the index knows of it.
func describe(all []recency.Found, ix *records.Index) error {
	recency.SortByDigest(all)
	find := func(d digest.Digest) *recency.Found {
		if f := recency.Find(all, d); f != nil {
			return f
		}
		return &recency.Found{Rank: recency.RankBlob} // its file is gone
	}
	var inner []digest.Digest // listed by indexes
	err := ix.EachManifest(func(d digest.Digest, rec records.Blob) error {
		blob := find(d)
		if blob.Rank = rankOf(rec.MediaType); blob.Rank == recency.RankIndex {
			inner = append(inner, rec.Children...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range inner {
		if blob := find(d); blob.Rank == recency.RankIndex {
			blob.Rank = recency.RankInner
		}
	}
	return ix.EachUse(func(d digest.Digest, at int64) { find(d).Used = at })
}

// rankOf tells the rank of a blob by its media type.
func rankOf(mediaType string) recency.Rank {
	switch {
	case mediaType == "":
		return recency.RankBlob
	case manifest.IsIndex(mediaType):
		return recency.RankIndex
	}
	return recency.RankManifest
}
