package records

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Referrers is the list of the manifests that refer to a subject, such as its signatures, as
// the upstream of a repository gave it.
type Referrers struct {
	Checked time.Time `json:"checked"` // when the upstream gave it
	// Unsupported says that the upstream has no such lists. Clients ask it for a tag instead.
	Unsupported bool                 `json:"unsupported,omitempty"`
	Manifests   []ocispec.Descriptor `json:"manifests,omitempty"`
}

const (
	// smallReferrers is the size of a list, in bytes, up to which it is recorded in any case:
	// so much disk its subject takes as well. It is enough for some ten referrers.
	smallReferrers = 4 << 10
	// maxLargeReferrers bounds the larger lists of one upstream together, in bytes, so that
	// an upstream cannot fill the index. A list has at most maxString bytes.
	maxLargeReferrers = 8 << 20
)

// Referrers returns the list of a subject.
func (ix *Index) Referrers(repo Repository, subject digest.Digest) (Referrers, error) {
	var rec Referrers
	err := ix.db.get(referrersKey(repo, subject), &rec)
	return rec, err
}

// PutReferrers records the list of a subject. If it is too large, nothing is recorded, an
// earlier list is removed, and kept is false.
func (ix *Index) PutReferrers(repo Repository, subject digest.Digest, rec Referrers) (kept bool, err error) {
	raw, err := json.Marshal(rec)
	if err != nil {
		return false, err
	}
	key := referrersKey(repo, subject)
	switch {
	case !validKey(len(key)) || !validText(len(raw)):
		return false, ix.db.remove(key)
	case len(raw) > smallReferrers:
		others, err := ix.db.largeValues(referrersPrefix+repo.Upstream+"/", smallReferrers, key)
		if err != nil {
			return false, err
		}
		if others+int64(len(raw)) > maxLargeReferrers {
			return false, ix.db.remove(key)
		}
	}
	return true, ix.db.put(entry{key, json.RawMessage(raw)})
}

// RemoveReferrers removes the list of a subject. It is no error if there is none.
func (ix *Index) RemoveReferrers(repo Repository, subject digest.Digest) error {
	return ix.db.remove(referrersKey(repo, subject))
}

// ReferringTo returns the manifests in the index that refer to a subject, whatever their
// repository, sorted. The first call reads the records of all manifests.
func (ix *Index) ReferringTo(subject digest.Digest) ([]digest.Digest, error) {
	all, err := ix.subjects.referringTo(ix, subject)
	return slices.DeleteFunc(all, func(d digest.Digest) bool {
		rec, err := ix.Blob(d)
		return err != nil || rec.Subject != subject
	}), err
}

// subjects knows which manifests refer to which subject. It may know of manifests that are
// not in the index any more.
type subjects struct {
	mu sync.Mutex // locked while all manifests are read; guards what follows
	of map[digest.Digest]map[digest.Digest]bool
}

func (s *subjects) referringTo(ix *Index, subject digest.Digest) ([]digest.Digest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = make(map[digest.Digest]map[digest.Digest]bool)
		err := ix.EachManifest(func(d digest.Digest, rec Blob) error {
			s.put(d, rec.Subject)
			return nil
		})
		if err != nil {
			s.of = nil
			return nil, err
		}
	}
	return slices.Sorted(maps.Keys(s.of[subject])), nil
}

// add notes a manifest whose record has been written.
func (s *subjects) add(d, subject digest.Digest) {
	if subject == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of != nil {
		s.put(d, subject)
	}
}

// put notes a manifest. The caller has locked s.mu.
func (s *subjects) put(d, subject digest.Digest) {
	if subject == "" {
		return
	}
	if s.of[subject] == nil {
		s.of[subject] = make(map[digest.Digest]bool)
	}
	s.of[subject][d] = true
}

// remove forgets a manifest whose record was removed.
func (s *subjects) remove(d, subject digest.Digest) {
	if subject == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.of[subject], d)
	if len(s.of[subject]) == 0 {
		delete(s.of, subject)
	}
}
