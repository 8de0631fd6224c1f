package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/larder-registry/larder/cache/fill"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
)

// MaxManifest is the size of the largest manifest, in bytes. It is ECR's limit,
// and what podman and containerd accept.
const MaxManifest = 4 << 20

// Manifest is a manifest or an index. Whoever has one may read Raw, and must
// not change it.
type Manifest struct {
	Digest    digest.Digest
	MediaType string
	Size      int64
	// Raw is the document, byte for byte; nil in the answer to a HEAD.
	Raw []byte
}

// Ask asks an upstream for a manifest by tag or digest; with head for its
// digest, type and size only, though an answer may bring the rest as well. It
// is called on behalf of everyone who waits, under the store's context. An
// error is fs.ErrNotExist where the upstream says that there is none.
type Ask func(ctx context.Context, reference string, head bool) (Manifest, error)

// Manifest returns the manifest with this digest, from here or through ask. It
// is kept, with its place in the repository and that of all it names, once it
// proved to be what it claims.
func (s *Store) Manifest(ctx context.Context, repo Repository, dgst digest.Digest, ask Ask) (Manifest, State, error) {
	if err := CheckDigest(dgst); err != nil {
		return Manifest{}, "", fmt.Errorf("manifest %q: %w", dgst, err)
	}
	if m, ok := s.local(repo, dgst); ok {
		return m, Hit, nil
	}
	key := "manifest/" + repo.String() + "@" + dgst.String()
	if err := s.denied(key); err != nil {
		return Manifest{}, Hit, err
	}
	m, err := share(ctx, s, key, func(ctx context.Context) (Manifest, error) {
		m, err := ask(ctx, dgst.String(), false)
		if err == nil && m.Digest != dgst {
			err = fmt.Errorf("asked for %s, got %s: %w", dgst, m.Digest, fill.ErrMismatch)
		}
		if err == nil {
			err = s.keep(ctx, repo, &m)
		}
		s.deny(key, err)
		return m, err
	})
	if err != nil {
		return Manifest{}, Miss, fmt.Errorf("manifest %s@%s: %w", repo, dgst, err)
	}
	return m, Miss, nil
}

// local returns a manifest that is here and belongs to the repository.
func (s *Store) local(repo Repository, dgst digest.Digest) (Manifest, bool) {
	place, err := s.member(repo, dgst)
	if err != nil {
		return Manifest{}, false
	}
	if m, ok := s.memory.manifests.Get(dgst); ok {
		s.useImage(dgst)
		return m, true
	}
	rec, err := s.index.Blob(dgst)
	if place.Manifest && rec.Size == 0 { // the index was lost
		m, ok := s.adoptAsked(dgst, rec.MediaType)
		if ok {
			s.memory.keep(m)
			s.useImage(dgst)
		}
		return m, ok
	}
	if err != nil || rec.MediaType == "" || rec.Size > MaxManifest {
		return Manifest{}, false
	}
	raw, err := os.ReadFile(s.folder.Blob(dgst))
	if err != nil {
		return Manifest{}, false
	}
	if dgst.Algorithm().FromBytes(raw) != dgst {
		s.log.Error("a manifest in the cache does not match its digest; it is fetched anew", "digest", dgst)
		return Manifest{}, false
	}
	m := Manifest{Digest: dgst, MediaType: rec.MediaType, Size: int64(len(raw)), Raw: raw}
	s.memory.keep(m)
	s.useImage(dgst)
	return m, true
}

// keep checks a manifest and stores it. A disk that cannot take it costs only
// the caching.
func (s *Store) keep(ctx context.Context, repo Repository, m *Manifest) error {
	children, err := check(m)
	if err != nil {
		return err
	}
	s.memory.keep(*m)
	members := map[digest.Digest]records.Member{m.Digest: {Size: m.Size, Manifest: true}}
	s.family(children, maxDepth, members)
	rec := recordOf(*m, children, s.opts.Now())
	if known, err := s.index.Blob(m.Digest); err == nil && known.IsManifest() {
		rec.Fetched = known.Fetched // by another repository, perhaps
	}
	record := func() error { return s.index.PutManifest(repo, m.Digest, rec, members) }
	if err := s.put(ctx, m.Digest, m.Raw, record); errors.Is(err, errFilling) {
		s.putLater(m.Digest, m.Raw, record)
	} else if err != nil {
		s.trouble(slog.LevelError, "a manifest was served but not kept", err, "repository", repo, "digest", m.Digest)
	}
	for dgst, rec := range members {
		s.memory.members.Add(records.RepoDigest{Repository: repo, Digest: dgst}, rec)
	}
	s.useClosure(m.Digest) // the layers that it shares with others
	s.manifestKept(m.Digest)
	return nil
}

func recordOf(m Manifest, children []descriptor, fetched time.Time) records.Blob {
	rec := records.Blob{Size: m.Size, Fetched: fetched, MediaType: m.MediaType, Subject: subjectOf(m.Raw)}
	for _, child := range children {
		rec.Children = append(rec.Children, child.Digest)
	}
	return rec
}

// document is what of a manifest or an index the store looks at.
type document struct {
	MediaType string       `json:"mediaType"`
	Config    *descriptor  `json:"config"`
	Layers    []descriptor `json:"layers"`
	Manifests []descriptor `json:"manifests"`
	Blobs     []descriptor `json:"blobs"`
}

type descriptor struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	URLs   []string      `json:"urls"`

	manifest bool // itself a manifest or an index
}

var errManifest = errors.New("the upstream's manifest is refused")

// check makes sure that a manifest is what it claims to be, fills in its size,
// and returns what it names. A document that could be read as two things, or as
// another than its type says, is refused (CVE-2021-41190).
func check(m *Manifest) ([]descriptor, error) {
	m.Size = int64(len(m.Raw))
	if m.Size > MaxManifest {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", errManifest, m.Size, MaxManifest)
	}
	if m.Digest.Algorithm().FromBytes(m.Raw) != m.Digest {
		return nil, fill.ErrMismatch
	}
	var doc document
	if err := json.Unmarshal(m.Raw, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", errManifest, err)
	}
	if m.MediaType == "" {
		m.MediaType = doc.MediaType
	}
	switch {
	case m.MediaType == "":
		return nil, fmt.Errorf("%w: it has no media type", errManifest)
	case doc.MediaType != "" && doc.MediaType != m.MediaType:
		return nil, fmt.Errorf("%w: its Content-Type is %q and its mediaType %q", errManifest, m.MediaType, doc.MediaType)
	case doc.Manifests != nil && (doc.Layers != nil || doc.Config != nil):
		return nil, fmt.Errorf("%w: it is both an index and a manifest", errManifest)
	}
	return doc.children()
}

// children lists what a document names and a registry holds. Layers with URLs
// live elsewhere, and are never fetched from there (CVE-2020-15157).
func (d *document) children() ([]descriptor, error) {
	for i := range d.Manifests {
		d.Manifests[i].manifest = true
	}
	all := append(append(d.Layers, d.Manifests...), d.Blobs...)
	if d.Config != nil {
		all = append(all, *d.Config)
	}
	children := all[:0]
	for _, child := range all {
		if len(child.URLs) > 0 {
			continue
		}
		if err := child.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("%w: it names %q: %w", errManifest, child.Digest, err)
		}
		children = append(children, child)
	}
	return children, nil
}

// Holds returns the size of a blob that the repository is known to hold, or -1
// where it is not known. What is not known to belong there as a blob, though it
// may be in the cache for another repository or as a manifest, is confirmed by
// the upstream first: containerd asks for a manifest among the blobs too, and
// takes a yes for the end of its search.
func (s *Store) Holds(ctx context.Context, repo Repository, dgst digest.Digest, confirm func(context.Context) (int64, error)) (int64, error) {
	if err := CheckDigest(dgst); err != nil {
		return 0, fmt.Errorf("blob %q: %w", dgst, err)
	}
	if rec, err := s.member(repo, dgst); err == nil && !rec.Manifest {
		return rec.Size, nil
	}
	key := "blob/" + repo.String() + "@" + dgst.String()
	if err := s.denied(key); err != nil {
		return 0, err
	}
	size, err := share(ctx, s, key, func(ctx context.Context) (int64, error) {
		size, err := confirm(ctx)
		s.deny(key, err)
		if err != nil {
			return 0, err
		}
		rec := records.Member{Size: size}
		s.memory.members.Add(records.RepoDigest{Repository: repo, Digest: dgst}, rec)
		if err := s.index.PutMember(repo, dgst, rec); err != nil {
			s.trouble(slog.LevelWarn, "a membership was not recorded", err, "repository", repo, "digest", dgst)
		}
		return size, nil
	})
	if err != nil {
		return 0, fmt.Errorf("blob %s@%s: %w", repo, dgst, err)
	}
	return size, nil
}

func (s *Store) member(repo Repository, dgst digest.Digest) (records.Member, error) {
	id := records.RepoDigest{Repository: repo, Digest: dgst}
	if rec, ok := s.memory.members.Get(id); ok {
		return rec, nil
	}
	rec, err := s.index.Member(repo, dgst)
	if err == nil {
		s.memory.members.Add(id, rec)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("membership could not be read", "repository", repo, "digest", dgst, "error", err)
	}
	return rec, err
}
