package cache

import (
	"encoding/json"

	platform "github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/recency"
)

// replaces reports whether an image may take the place of another one in a repository: clients of
// the repository get it whole from the cache for each platform for which they get the other one,
// as far as it has these platforms at all. An image that is not whole for any platform is replaced
// by every other one.
func (s *Store) replaces(repo Repository, image, other digest.Digest) bool {
	before := s.platformsOf(repo, other)
	some := false
	for _, whole := range before {
		some = some || whole
	}
	if !some {
		return true
	}
	now := s.platformsOf(repo, image)
	some = false
	for name, whole := range now {
		if !whole && before[name] {
			return false
		}
		some = some || whole
	}
	return some
}

// platformsOf returns the platforms of an image, and whether it is whole for each. An image that
// is no index has one, without a name; and so has an index without platforms.
func (s *Store) platformsOf(repo Repository, d digest.Digest) map[string]bool {
	m, _, err := manifest.ReadFile(s.folder.Blob(d), d)
	if err != nil {
		return nil
	}
	all := make(map[string]bool)
	var index ocispec.Index
	if manifest.IsIndex(m.MediaType) && json.Unmarshal(m.Raw, &index) == nil {
		for _, entry := range index.Manifests {
			if manifest.IsPlatform(entry.Platform, entry.ArtifactType) {
				name := platform.FormatAll(platform.Normalize(*entry.Platform))
				all[name] = all[name] || s.isWhole(repo, entry.Digest, recency.MaxDepth)
			}
		}
	}
	if len(all) == 0 {
		all[""] = s.isWhole(repo, d, recency.MaxDepth)
	}
	return all
}

// isWhole reports whether clients of a repository get a manifest from the cache, with everything
// that it names.
func (s *Store) isWhole(repo Repository, d digest.Digest, depth int) bool {
	if _, err := s.Size(repo, d); err != nil || depth == 0 {
		return false
	}
	_, parts, err := manifest.ReadFile(s.folder.Blob(d), d)
	if err != nil {
		return false
	}
	for _, child := range parts.Children {
		if child.Manifest {
			if !s.isWhole(repo, child.Digest, depth-1) {
				return false
			}
		} else if _, err := s.Size(repo, child.Digest); err != nil && child.Size > 0 {
			return false
		}
	}
	return true
}
