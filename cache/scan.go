package cache

import (
	"errors"
	"io/fs"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// scan finds what is in the folder, and when it was last used: by the index, or
// by the file where the index does not say. Hits are served meanwhile; only what
// needs disk space waits. What cannot be read is passed over: the rest counts all
// the same.
func (s *Store) scan() error {
	s.rebuildOn()
	all, err := foundBlobs(s.folder, s.ctx.Err)
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	partials, unread := foundPartials(s.folder)
	err = errors.Join(err, unread, describe(all, s.index))
	before := s.recency.Bytes()
	s.recency.Load(append(all, partials...))
	s.space.Add(s.recency.Bytes() - before)
	err = errors.Join(err, s.space.Measure())
	s.pinAllConfigured()
	if err := s.doomAgain(); err != nil {
		s.log.Warn("what lifecycle rules have expired goes with the rest until they are applied again", "error", err)
	}
	return err
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
	var inner []digest.Digest // what indexes list
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

// foundBlobs lists the complete blobs in the folder. cancelled ends it early.
func foundBlobs(f *disk.Folder, cancelled func() error) ([]recency.Found, error) {
	var all []recency.Found
	err := f.EachBlob("", func(d digest.Digest, info fs.FileInfo) error {
		all = append(all, recency.NewFound(d, recency.Item{Bytes: disk.ChargeOf(info)}, info.ModTime().Unix()))
		return cancelled()
	})
	return all, err
}

// foundPartials lists the partial downloads in the folder.
func foundPartials(f *disk.Folder) ([]recency.Found, error) {
	var all []recency.Found
	err := f.EachPartial(func(d digest.Digest, info fs.FileInfo) error {
		all = append(all, recency.NewFound(d, recency.Item{Bytes: disk.Charge(info.Size()), Partial: true}, info.ModTime().Unix()))
		return nil
	})
	return all, err
}

// rankOf tells from its media type what a blob is.
func rankOf(mediaType string) recency.Rank {
	switch mediaType {
	case "":
		return recency.RankBlob
	case ocispec.MediaTypeImageIndex, "application/vnd.docker.distribution.manifest.list.v2+json":
		return recency.RankIndex
	}
	return recency.RankManifest
}
