package records

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"
)

// next is the image that a tag is to name once it is whole here.
type next struct {
	Digest digest.Digest `json:"digest"`
}

// PutNext records the manifest that a tag is to name once all of it is here. "" removes the
// record. The tag itself may have no record yet.
func (ix *Index) PutNext(repo Repository, tag string, d digest.Digest) error {
	if d == "" {
		return ix.db.remove(nextKey(repo, tag))
	}
	return ix.db.put(entry{nextKey(repo, tag), next{d}})
}

// EachNext calls visit for every tag that is to name another manifest, until visit returns an
// error.
func (ix *Index) EachNext(visit func(repo Repository, tag string, d digest.Digest) error) error {
	return ix.db.each(nextPrefix, func(name, raw []byte) error {
		var rec next
		if readable := json.Unmarshal(raw, &rec) == nil; readable {
			repo, tag := parseTag(string(name))
			return visit(repo, tag, rec.Digest)
		}
		return nil
	})
}
