package cache

import (
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/records"
)

// Unproven is a blob or a manifest in the cache that a repository is not known to have, though
// one of its manifests names it: its clients do not get it from the cache.
type Unproven struct {
	RepoDigest
	Manifest bool
}

// maxUnproven bounds what waits in the channel of [Store.Unproven]: some 200 bytes each.
const maxUnproven = 4096

// Unproven returns a channel with what is to be proven since a manifest or a blob has come. A
// runtime does not ask again for layers that it has, so nobody else would ask, and the image
// could not be served without the upstream. What the channel has no room for is found by
// [Store.EachUnproven].
func (s *Store) Unproven() <-chan Unproven { return s.unproven }

// seekProofs asks for proofs of a blob or manifest that has come into the cache.
func (s *Store) seekProofs(d digest.Digest) {
	var all []Unproven
	err := s.index.EachOf(d, "", func(repo Repository, rec records.Member) {
		if !s.isServed(repo, rec) {
			all = append(all, Unproven{RepoDigest{Repository: repo, Digest: d}, rec.Manifest})
		}
	})
	if err != nil {
		s.log.Warn("proofs that a repository has a blob are asked for later", "digest", d, "error", err)
	}
	for _, u := range all {
		s.seekProof(u)
	}
}

func (s *Store) seekProof(u Unproven) {
	select {
	case s.unproven <- u:
	default: // see EachUnproven
	}
}

// seekProofsOf asks for proofs of what a manifest of a repository names and the cache has.
func (s *Store) seekProofsOf(repo Repository, members map[digest.Digest]records.Member) {
	for d, rec := range members {
		known, err := s.member(repo, d)
		if err == nil && !known.served && s.isOnDisk(d) {
			s.seekProof(Unproven{RepoDigest{Repository: repo, Digest: d}, rec.Manifest})
		}
	}
}

func (s *Store) isOnDisk(d digest.Digest) bool {
	it, ok := s.items.Get(d)
	return ok && !it.Partial
}

// IsUnproven reports whether a proof is still of use.
func (s *Store) IsUnproven(u Unproven) bool {
	known, err := s.member(u.Repository, u.Digest)
	return err == nil && (!known.served || known.Proven == records.NotTold) && s.isOnDisk(u.Digest)
}

// errEnough ends a walk.
var errEnough = errors.New("enough was visited")

// EachUnproven calls visit for all that is to be proven, until it returns false. That includes
// blobs which are served as an earlier release served them, where a proof would tell more: in an
// upstream of Options.NeedsProof, and where several upstreams have the blob. It includes no
// such manifests, since some registries count each request for one. It waits until the folder is
// loaded, and reads all memberships. visit must not call the store.
func (s *Store) EachUnproven(visit func(Unproven) bool) error {
	if err := s.awaitLoaded(); err != nil {
		return err
	}
	var group []Unproven // of one digest: those of an earlier release
	upstreams := make(map[string]bool)
	flush := func() error {
		for _, u := range group {
			if (len(upstreams) > 1 || s.needsProof(u.Repository)) && !visit(u) {
				return errEnough
			}
		}
		group = group[:0]
		clear(upstreams)
		return nil
	}
	var last digest.Digest
	err := s.index.EachMember(s.isOnDisk, func(of RepoDigest, rec records.Member) error {
		if of.Digest != last {
			if err := flush(); err != nil {
				return err
			}
			last = of.Digest
		}
		upstreams[of.Upstream] = true
		u := Unproven{of, rec.Manifest}
		switch {
		case rec.Proven == records.NotTold && !rec.Manifest:
			group = append(group, u)
		case !s.isServed(of.Repository, rec) && !visit(u):
			return errEnough
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}
