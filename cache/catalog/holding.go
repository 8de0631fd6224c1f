package catalog

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache/manifest"
	"github.com/larder-registry/larder/cache/records"
)

// Holding is a manifest that a repository has in the cache, with what lifecycle rules need
// to know. Each platform of an index is one, as it is in a registry.
type Holding struct {
	Digest   digest.Digest
	Tags     []string        // as they are known here
	Index    bool            // it lists other manifests
	Children []digest.Digest // what it names
	Subject  digest.Digest   // what it is about, if it is a referrer such as a signature
	Fetched  time.Time       // when it came into the cache
	Used     time.Time       // when it was last asked for, or Fetched
	Touched  time.Time       // when the upstream was last told that it is in use, or Fetched
}

// Holdings returns what each repository has in the cache. touched is when the upstream was
// last told that manifests are in use.
func (c *Catalog) Holdings(touched map[records.RepoDigest]time.Time) map[records.Repository][]Holding {
	tags := make(map[records.RepoDigest][]string)
	for _, img := range c.images { // in the order of their names
		if img.Tag != "" {
			id := records.RepoDigest{Repository: img.repo(), Digest: img.Digest}
			tags[id] = append(tags[id], img.Tag)
		}
	}
	all := make(map[records.Repository][]Holding)
	for repo, manifests := range c.members {
		for _, d := range manifests {
			id, rec := records.RepoDigest{Repository: repo, Digest: d}, c.manifests[d]
			at, ok := touched[id]
			if !ok {
				at = rec.Fetched
			}
			all[repo] = append(all[repo], Holding{
				Digest:   d,
				Tags:     tags[id],
				Index:    manifest.IsIndex(rec.MediaType),
				Children: rec.Children,
				Subject:  rec.Subject,
				Fetched:  rec.Fetched,
				Used:     c.used[d],
				Touched:  at,
			})
		}
	}
	return all
}
