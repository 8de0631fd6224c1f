package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// scan finds what is in the folder, and when it was last used: by the index, or
// by the file where the index does not say. Hits are served meanwhile; only what
// needs disk space waits.
func (s *Store) scan() error {
	known, err := s.index.known()
	if err != nil {
		return err
	}
	all, err := s.layout.blobs(s.ctx.Err)
	if err != nil {
		return err
	}
	partials, err := s.layout.partials()
	if err != nil {
		return err
	}
	for i := range all {
		if rec, ok := known[all[i].digest]; ok {
			all[i].rank = rec.rank
			if !rec.used.IsZero() {
				all[i].used = rec.used
			}
		}
	}
	before := s.recency.total()
	s.recency.load(append(all, partials...))
	s.space.charge(s.recency.total() - before)
	err = s.space.measure()
	s.pinAllConfigured()
	if err := s.doomAgain(); err != nil {
		s.log.Warn("what lifecycle rules have expired goes with the rest until they are applied again", "error", err)
	}
	return err
}

// blobs lists the complete blobs. cancelled ends it early.
func (l layout) blobs(cancelled func() error) ([]found, error) {
	var all []found
	err := l.eachBlob("", func(d digest.Digest, info fs.FileInfo) error {
		all = append(all, found{digest: d, item: item{bytes: allocated(info)}, used: info.ModTime(), rank: rankBlob})
		return cancelled()
	})
	return all, err
}

// partials lists the blobs on their way.
func (l layout) partials() ([]found, error) {
	entries, err := os.ReadDir(filepath.Join(l.dir, "partial"))
	if err != nil {
		return nil, err
	}
	var all []found
	for _, entry := range entries {
		d := partialDigest(entry.Name())
		if d.Validate() != nil {
			continue // a journal
		}
		info, err := entry.Info()
		if err != nil {
			return nil, err
		}
		all = append(all, found{digest: d, item: item{bytes: onDisk(info.Size()), partial: true}, used: info.ModTime(), rank: rankBlob})
	}
	return all, nil
}

// allocated is what a file takes on disk.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return max(onDisk(st.Blocks*512), onDisk(info.Size()))
	}
	return onDisk(info.Size())
}

// diskUsage is what the files below a folder take on disk.
func diskUsage(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return ignoreMissing(err)
		}
		info, err := entry.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum, err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// knownBlob is what the index says of a blob.
type knownBlob struct {
	used time.Time // zero if it does not say
	rank rank
}

// rankOf tells from its media type what a blob is.
func rankOf(mediaType string) rank {
	switch mediaType {
	case "":
		return rankBlob
	case ocispec.MediaTypeImageIndex, "application/vnd.docker.distribution.manifest.list.v2+json":
		return rankIndex
	}
	return rankManifest
}
