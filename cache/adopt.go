package cache

import (
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An index that was lost is made anew from its snapshot, which knows of a
// manifest only its type, or nothing at all. The rest is in the manifest's file.

// manifestMode is what tells the files of manifests from those of blobs.
const manifestMode fs.FileMode = 0o600

// fromFile reads a manifest from its file, and checks that it is one. An empty
// mediaType means that it is not known.
func (s *Store) fromFile(d digest.Digest, mediaType string) (Manifest, []descriptor, error) {
	f, err := os.Open(s.folder.Blob(d))
	if err != nil {
		return Manifest{}, nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, MaxManifest+1))
	if err != nil {
		return Manifest{}, nil, err
	}
	m := Manifest{Digest: d, MediaType: mediaType, Raw: raw}
	if m.MediaType == "" {
		m.MediaType = typeOf(raw)
	}
	children, err := check(&m)
	return m, children, err
}

// typeOf tells what a document is. One that does not say so itself is of the
// OCI: Docker's must.
func typeOf(raw []byte) string {
	var doc document
	if json.Unmarshal(raw, &doc) != nil {
		return ""
	}
	switch {
	case doc.MediaType != "":
		return doc.MediaType
	case doc.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case doc.Config != nil && doc.Layers != nil:
		return ocispec.MediaTypeImageManifest
	}
	return ""
}

// adopt returns a manifest, and its record, from its file.
func (s *Store) adopt(d digest.Digest, mediaType string) (Manifest, records.Blob, error) {
	m, children, err := s.fromFile(d, mediaType)
	if err != nil {
		return Manifest{}, records.Blob{}, err
	}
	info, err := os.Stat(s.folder.Blob(d))
	if err != nil {
		return Manifest{}, records.Blob{}, err
	}
	return m, recordOf(m, children, info.ModTime()), nil
}

// adoptAsked is adopt for who asks for a manifest before rebuild came to it.
func (s *Store) adoptAsked(d digest.Digest, mediaType string) (Manifest, bool) {
	m, rec, err := s.adopt(d, mediaType)
	if err != nil {
		return Manifest{}, false
	}
	if err := s.index.PutBlob(d, rec); err != nil {
		s.trouble(slog.LevelWarn, "a manifest was not recorded", err, "digest", d)
	}
	return m, true
}

// rebuilding is the work of making an index anew. It belongs to Store.tend.
type rebuilding struct {
	rest   time.Time // not before this time again
	failed bool
}

// rebuildOn adds to an index that was lost what the files tell. Where that fails,
// as on a full disk, it is tried again at a later tick, and at the next start.
func (s *Store) rebuildOn() {
	begin := time.Now()
	if !s.index.Rebuilding() || begin.Before(s.rebuilding.rest) {
		return
	}
	err := s.folder.EachBlob("", s.adoptFound)
	if err == nil {
		err = s.index.SetRebuilding(false)
	}
	s.rebuilding.rest = time.Now().Add(snapshotShare * time.Since(begin))
	switch {
	case err == nil && s.rebuilding.failed:
		s.log.Info("the index has been made anew")
		s.repinOrWarn() // pins did not know what manifests name
	case err != nil && s.ctx.Err() == nil && !s.rebuilding.failed:
		s.rebuilding.failed = true
		s.trouble(slog.LevelError, "the index could not be made anew; that is tried again", err)
	}
}

// adoptFound makes up for what the index does not know of a manifest that is
// here.
func (s *Store) adoptFound(d digest.Digest, info fs.FileInfo) error {
	if info.Mode().Perm() != manifestMode || info.Size() > MaxManifest {
		return s.ctx.Err()
	}
	known, err := s.index.Blob(d)
	if err == nil && known.Size > 0 {
		return s.ctx.Err()
	}
	_, rec, err := s.adopt(d, known.MediaType)
	switch {
	case err == nil:
		return s.index.PutBlob(d, rec)
	case known.MediaType != "":
		s.log.Warn("a manifest in the cache cannot be read; it is fetched anew", "digest", d, "error", err)
		return s.index.RemoveBlob(d) // it has no children
	}
	return s.ctx.Err() // it is none: a umask may take rights from other files too
}

// family adds to members what the manifests below an index name, as far as they
// are here and no repository is known to hold them, as after the index was lost.
// Otherwise the upstream is asked about each manifest, and it may have gone
// again.
func (s *Store) family(children []descriptor, depth int, members map[digest.Digest]records.Member) {
	for _, child := range children {
		if _, known := members[child.Digest]; !known {
			members[child.Digest] = records.Member{Size: child.Size, Manifest: child.manifest}
		}
		if !child.manifest || depth == 0 || s.hasMember(child.Digest) {
			continue
		}
		if _, below, err := s.fromFile(child.Digest, ""); err == nil {
			s.family(below, depth-1, members)
		}
	}
}

// hasMember reports whether any repository is known to contain a blob.
func (s *Store) hasMember(d digest.Digest) bool {
	repos, err := s.index.Repositories(d, 1)
	return len(repos) > 0 || err != nil
}
