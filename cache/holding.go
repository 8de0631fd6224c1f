package cache

import (
	"encoding/json"
	"time"

	"github.com/larder-registry/larder/cache/recency"
	"github.com/larder-registry/larder/cache/records"
	"github.com/opencontainers/go-digest"
)

// Holding is a manifest that a repository has in the cache, with what lifecycle
// rules go by. Each platform of an index is one, as it is in a registry.
type Holding struct {
	Digest   digest.Digest
	Tags     []string        // as they are known here
	Index    bool            // it lists other manifests
	Children []digest.Digest // what it names
	Subject  digest.Digest   // what it is about, if it is a referrer such as a signature
	Fetched  time.Time       // when it first came, since it is here
	Used     time.Time       // when it was last asked for, or Fetched
	Touched  time.Time       // see [Store.Touched]; or Fetched
}

// Holdings returns what each repository has in the cache. It reads as much as
// [Store.Images] does.
func (s *Store) Holdings() (map[Repository][]Holding, error) {
	c, err := s.catalog()
	if err != nil {
		return nil, err
	}
	tags := make(map[records.RepoDigest][]string)
	for _, img := range c.images { // in the order of their names
		if img.Tag != "" {
			id := records.RepoDigest{Repository: img.repo(), Digest: img.Digest}
			tags[id] = append(tags[id], img.Tag)
		}
	}
	touched, err := s.index.Touches()
	if err != nil {
		return nil, err
	}
	all := make(map[Repository][]Holding)
	for repo, manifests := range c.members {
		for _, d := range manifests {
			rec := c.manifests[d]
			at, ok := touched[records.RepoDigest{Repository: repo, Digest: d}]
			if !ok {
				at = rec.Fetched
			}
			all[repo] = append(all[repo], Holding{
				Digest:   d,
				Tags:     tags[records.RepoDigest{Repository: repo, Digest: d}],
				Index:    rankOf(rec.MediaType) == recency.RankIndex,
				Children: rec.Children,
				Subject:  rec.Subject,
				Fetched:  rec.Fetched,
				Used:     c.used[d],
				Touched:  at,
			})
		}
	}
	return all, nil
}

// subjectOf returns the digest of a manifest's subject, or nothing.
func subjectOf(raw []byte) digest.Digest {
	var doc struct {
		Subject descriptor `json:"subject"`
	}
	if json.Unmarshal(raw, &doc) != nil || doc.Subject.Digest.Validate() != nil {
		return ""
	}
	return doc.Subject.Digest
}

// readMembers notes which repositories hold which of the manifests that are
// here.
func (c *catalog) readMembers(ix *records.Index) error {
	here := func(d digest.Digest) bool {
		_, ok := c.manifests[d]
		return ok
	}
	return ix.EachMember(here, func(of records.RepoDigest, rec records.Member) error {
		if rec.Manifest {
			c.members[of.Repository] = append(c.members[of.Repository], of.Digest)
		}
		return nil
	})
}
