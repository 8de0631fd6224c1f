package main

import (
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestDeadUpstreamAffectsOnlyWhatIsNotCached(t *testing.T) {
	t.Parallel()
	s := startStack(t)
	image := s.ecr.add(t, plainImage{Repository: "edge/app", Tag: "1", Seed: 1, Layers: []int64{1 << 10, 20 << 20}})
	requirePull(t, s.newPullers(t, 1), "edge/app", "1", image.Root.Digest)
	s.ecr.kill()
	t.Run("running", s.servesWithoutUpstream("edge/app", "1", image.Root.Digest))
	s.restartLarder(t) // ready, without a network and without a token
	t.Run("restarted", s.servesWithoutUpstream("edge/app", "1", image.Root.Digest))
}

// servesWithoutUpstream returns a test that pulls a cached image by tag and by digest, and asks for content that is not
// cached.
func (s *stack) servesWithoutUpstream(repository, tag string, dgst digest.Digest) func(*testing.T) {
	return func(t *testing.T) {
		for _, missing := range []struct{ path, code string }{
			{repository + "/manifests/other", "UNAVAILABLE"},
			{repository + "/manifests/" + unknownDigest, "UNAVAILABLE"},
			{repository + "/blobs/" + unknownDigest, "BLOB_UNKNOWN"},
			{repository + "/referrers/" + unknownDigest, "UNAVAILABLE"},
			{"edge/other/manifests/" + tag, "UNAVAILABLE"},
			{"edge/other/manifests/" + dgst.String(), "UNAVAILABLE"}, // cached, for another repository
		} {
			requireRefusal(t, "http://"+s.listen+"/v2/"+s.ecr.Host+"/"+missing.path, missing.code)
		}
		for _, reference := range []string{tag, dgst.String()} {
			requirePull(t, s.newPullers(t, 1), repository, reference, dgst)
		}
	}
}

// unknownDigest is the digest of no content.
const unknownDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
