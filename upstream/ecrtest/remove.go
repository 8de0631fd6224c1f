package ecrtest

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// RemoveManifest takes a manifest out of a repository, with its tags, as a
// lifecycle policy does in time. What it names stays.
func (s *Server) RemoveManifest(repo string, dgst digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[repo]
	if r == nil {
		return fmt.Errorf("removing %s@%s: %w", repo, dgst, fs.ErrNotExist)
	}
	m, ok := r.manifests[dgst]
	if !ok {
		return fmt.Errorf("removing %s@%s: %w", repo, dgst, fs.ErrNotExist)
	}
	if subject, _, ok := m.referrer(); ok {
		r.referrers[subject] = slices.DeleteFunc(r.referrers[subject], func(d ocispec.Descriptor) bool { return d.Digest == dgst })
	}
	delete(r.manifests, dgst)
	delete(r.states, dgst)
	maps.DeleteFunc(r.tags, func(_ string, d digest.Digest) bool { return d == dgst })
	return nil
}
